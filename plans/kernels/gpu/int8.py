"""Integer products on CUDA by Triton: rounded inputs times packed weights of 8 to 2 bits, unpacked in registers.

With a the codes of a row of the input and s its scale, q, t_g and z_g those of the weight, for G groups g of inputs,

    y = s * sum over g of t_g A_g + bias,    A_g = sum over k in g of a (q - z_g)

where A_g is an exact int32 and the rest float32; where a weight has no groups and more than 2^15 inputs, every step of
up to 128 inputs is a group here. The error against the float64 reference is at most
(G + 5) * 2^-24 * (|s| * sum over g of |t_g A_g| + |bias|), and half a digit of the output's type.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.plans.kernels.base import INT8, Held, Kernel, declines_geometry, rounded_samples
from bitplan.plans.kernels.gpu.operators import KINDS, multiplied, rounded, with_triton


@torch.no_grad()
def run(x: Tensor, layer: Held) -> Tensor:
    """The output of the layer, in the type of `x`."""
    fmt, scales = layer.scheme.inputs, layer.scales
    if layer.geometry is not None:
        inputs = rounded_samples(x, lambda rows: rounded(rows, fmt, scales))
        return multiplied(inputs, layer, x.dtype)
    return multiplied(rounded(x, fmt, scales), layer, x.dtype).view(*x.shape[:-1], layer.packed.outputs)


GPU_INT8 = Kernel(
    "gpu_int8", "int8 products of rounded inputs and packed weights on CUDA; semantics tested, speed unmeasured", True,
    INT8, with_triton, run, declines_geometry, KINDS,
)  # fmt: skip
