"""Inputs as they come, weights unpacked and dequantized per call in blocks of output channels.

The float weight never exists as a whole: memory is saved, time is not. It computes in the type of the input. With eps
of that type and K inputs, the error against the float64 reference is at most (K + 3) * eps * (sum of |x w| + |bias|).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from plans.activations import ActivationScales
from plans.formats import Packed, dequantize_rows, row_blocks, shaped
from plans.kernels.base import BLOCK, Geometry, Kernel, declines_geometry, float_conv2d, on_cpu
from plans.scheme import Scheme


def declines(scheme: Scheme, geometry: Geometry | None) -> str | None:
    if scheme.activation.bits != 16:
        return f"takes a16 inputs only, not {scheme.activation}"
    if scheme.weight.kind == "keep":
        return "`keep` stores no codes to unpack"
    return declines_geometry(geometry)


@torch.no_grad()
def run(
    x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, scales: ActivationScales | None,
    geometry: Geometry | None,
) -> Tensor:  # fmt: skip
    """The output of the layer, in the type of `x`."""
    bias = None if bias is None else bias.to(x.dtype)
    if geometry is None:
        out = x.new_empty(*x.shape[:-1], packed.outputs)
    else:
        out = x.new_empty(x.shape[0], packed.outputs, *geometry.output_size(x.shape[2], x.shape[3]))
    for start, stop in row_blocks(packed, BLOCK):
        weight = dequantize_rows(packed, start, stop).to(x.dtype)
        part = None if bias is None else bias[start:stop]
        if geometry is None:
            out[..., start:stop] = linear(x, weight, part)
        else:
            out[:, start:stop] = float_conv2d(x, shaped(weight, packed.shape), part, geometry)
    return out


CPU_WEIGHT_ONLY = Kernel(
    "cpu_weight_only", "packed weights, dequantized in blocks of output channels", True, on_cpu, declines, run
)
