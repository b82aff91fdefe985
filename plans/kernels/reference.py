"""The specification of every kernel: plain torch on the dequantized weight and the input rounded to its codes and back.

It computes in float32, or in float64 for a float64 input, and saves neither memory nor time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from bitplan.plans.formats import Packed, dequantize
from bitplan.plans.inputs.integer import ActivationScales, fake_quantize
from bitplan.plans.kernels.base import Geometry, Kernel, float_conv
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import Scheme


def anywhere(device: torch.device) -> None:
    """It runs on every device."""


def anything(scheme: Scheme, geometry: Geometry | None) -> None:
    """It runs every scheme on every layer."""


def run(
    x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, scales: ActivationScales | None,
    geometry: Geometry | None,
) -> Tensor:  # fmt: skip
    """The output of the simulated layer, in the type of `x`."""
    if not x.is_floating_point():
        return embedding(x, dequantize(packed))
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    rows = exact if geometry is None else exact.flatten(1)
    rounded = fake_quantize(rows, scheme.activation, scales).view(exact.shape)
    weight = dequantize(packed).to(exact.dtype)
    bias = None if bias is None else bias.to(exact.dtype)
    out = linear(rounded, weight, bias) if geometry is None else float_conv(rounded, weight, bias, geometry)
    return out.to(x.dtype)


REFERENCE = Kernel(
    "reference", "plain torch on dequantized weights; the specification", False, anywhere, anything, run, tuple(KINDS)
)
