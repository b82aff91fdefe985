"""Inputs as they come times packed weights, unpacked in registers, on CUDA by Triton: memory is saved, and traffic.

Products are of the input's type (float32 for float64) and summed in float32; a convolution is gathered (implicit GEMM)
as in `gpu_int8`. With K inputs, the error against the float64 reference is at most
(K + 3) * 2^-23 * (sum of |x w| + |bias|), and half a digit of the output's type. Inputs are multiplied by codes, up to
2^8, and then by scales: where the sum of |x| is above 2^120, as no trained layer's is, the output may be infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.plans.kernels.base import FLOAT_INPUTS, Held, Kernel, declines_geometry
from bitplan.plans.kernels.gpu.operators import KINDS, multiplied, with_triton


@torch.no_grad()
def run(x: Tensor, layer: Held) -> Tensor:
    """The output of the layer, in the type of `x`."""
    values = x.float() if x.dtype == torch.float64 else x
    if layer.geometry is not None:
        return multiplied([values.movedim(1, -1)], layer, x.dtype)
    out = multiplied([values.reshape(-1, layer.packed.inputs)], layer, x.dtype)
    return out.view(*x.shape[:-1], layer.packed.outputs)


GPU_WEIGHT_ONLY = Kernel(
    "gpu_weight_only", "packed weights, unpacked in registers, on CUDA; semantics tested, speed unmeasured",
    True, FLOAT_INPUTS, with_triton, run, declines_geometry, KINDS,
)  # fmt: skip
