"""W8A8 of linear layers on CUDA without Triton: torch's own int8 product (`torch._int_mm`), scales and bias after it.

For plain weights only: 8 bits, symmetric, one scale for each output channel. The product wants more than 16 rows, and
inputs and outputs in multiples of 8: what is missing is filled with zeros. The int32 sums, exact for up to 2^16 inputs,
go through memory, which the Triton kernel saves; torch.compile fuses the rest. The error against the float64 reference
is at most 6 * 2^-24 * (|s t A| + |bias|), in the letters of `gpu_int8`, and half a digit of the output's type.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from bitplan.plans.inputs.integer import quantize_rows
from bitplan.plans.kernels.base import Held, Kernel
from bitplan.plans.kernels.gpu.operators import on_cuda
from bitplan.plans.takes import ANY, Takes

ROWS, MULTIPLE = 17, 8  # of rows at least, of inputs and outputs
SEGMENT = 1 << 16  # inputs summed at most in one int32: 2^16 * 128 * 127 < 2^31
TAKES = Takes({"int": {"bits": (8,), "least_squares": ANY}}, {"int": {"bits": (8,), "static": ANY}}, ("first",),
              {"weights": "it multiplies w8 with one scale a channel"})  # fmt: skip


@torch.no_grad()
def run(x: Tensor, layer: Held) -> Tensor:
    """The output of the layer, in the type of `x`."""
    held = layer.packed.tensors
    codes, steps = quantize_rows(x, layer.scheme.inputs, layer.scales)
    sums = int_product(codes, held["codes"].view(torch.int8), steps.clamp(max=1))  # so, no product is beyond float32
    out = sums * held["scale"].view(-1) * steps.clamp(min=1)
    if layer.bias is not None:
        out = out + layer.bias.float()
    return out.to(x.dtype).view(*x.shape[:-1], layer.packed.outputs)


def int_product(left: Tensor, right: Tensor, factor: Tensor) -> Tensor:
    """left (M, K) times right (O, K) transposed, int8, times factor (M, 1), as float32 (M, O): exact sums of up to
    SEGMENT inputs each."""
    rows, outputs = left.shape[0], right.shape[0]
    factor = pad(factor, (0, 0, 0, max(0, ROWS - rows)))
    left = pad(left, (0, -left.shape[1] % MULTIPLE, 0, max(0, ROWS - rows)))
    right = pad(right, (0, -right.shape[1] % MULTIPLE, 0, -outputs % MULTIPLE))
    parts = zip(left.split(SEGMENT, 1), right.split(SEGMENT, 1), strict=True)
    sums = [torch._int_mm(a.contiguous(), b.contiguous().t()) * factor for a, b in parts]
    return sum(sums[1:], sums[0])[:rows, :outputs]


GPU_INT_MM = Kernel(
    "gpu_int_mm", "torch's int8 product for plain w8a8 linear layers on CUDA; semantics tested, speed unmeasured",
    True, TAKES, on_cuda, run, kinds=("linear",),
)  # fmt: skip
