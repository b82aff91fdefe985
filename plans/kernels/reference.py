"""The specification of every kernel: plain torch on the dequantized weight and the input rounded to its codes and back.

It computes in float32, or in float64 for a float64 input, and saves neither memory nor time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from bitplan.plans.formats.storage import dequantize
from bitplan.plans.geometry import Geometry
from bitplan.plans.kernels.base import Held, Kernel, float_conv
from bitplan.plans.kinds import KINDS
from bitplan.plans.numerics import rounded_input, transformed_input
from bitplan.plans.takes import EVERYTHING


def anywhere(device: torch.device) -> None:
    """It runs on every device."""


def run(x: Tensor, layer: Held) -> Tensor:
    """The output of the simulated layer, in the type of `x`."""
    packed, geometry = layer.packed, layer.geometry
    if not x.is_floating_point():
        return embedding(x, dequantize(packed))
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    changed = transformed_input(exact, layer.kind, layer.scheme, layer.fitted)
    rounded = rounded_input(changed, layer.kind, layer.scheme, layer.scales)
    weight = dequantize(packed).to(exact.dtype)
    bias = None if layer.bias is None else layer.bias.to(exact.dtype)
    if geometry is None:
        return linear(rounded, weight, bias).to(x.dtype)
    out = float_conv(rounded, weight, bias, geometry)
    if layer.scheme.inputs.bits < 16 and _reads_padding_alone(geometry):
        out = out + rounded.flatten(1)[:, :1].view(-1, *(1,) * (out.dim() - 1)) * 0  # NaN of a sample is in all of it
    return out.to(x.dtype)


def _reads_padding_alone(geometry: Geometry) -> bool:
    """Whether some output reads no number of the input."""
    reaches = [dilation * (kernel - 1) + 1 for kernel, _, dilation, _ in geometry.sizes for _ in range(2)]
    return any(pad >= reach for pad, reach in zip(geometry.pads[::-1], reaches, strict=True))


REFERENCE = Kernel(
    "reference", "plain torch on dequantized weights; the specification", False, EVERYTHING, anywhere, run,
    kinds=tuple(KINDS),
)  # fmt: skip
