"""Weights that stay floating point: fp8 (e4m3, Micikevicius et al. 2022, arXiv:2209.05433) and `keep`."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.plans.formats.base import Format, Grid, Packed, Parts
from bitplan.plans.scheme import WeightFormat

FP8_MAX = 448.0  # the largest finite e4m3fn
_TINY = torch.finfo(torch.float32).tiny


def quantize_fp8(weight: Tensor, fmt: WeightFormat) -> Parts:
    """Codes (O, K) float8_e4m3fn and scale (O, 1) = largest magnitude / 448."""
    weight = weight.float()
    scale, _ = grid_fp8(weight, fmt)
    return (weight / scale).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scale, None


def dequantize_fp8(packed: Packed, start: int, stop: int) -> Tensor:
    assert packed.scale is not None
    return packed.codes[start:stop].float().mul_(packed.scale[start:stop])


def grid_fp8(weight: Tensor, fmt: WeightFormat) -> tuple[Tensor, None]:
    scale = weight.float().abs().amax(1, keepdim=True) / FP8_MAX
    return torch.where(scale < _TINY, 1.0, scale), None


def on_grid_fp8(weight: Tensor, grid: Grid) -> Tensor:
    assert grid.scale is not None
    codes = (weight.float() / grid.scale).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return codes.float().mul_(grid.scale)


def fp8_bytes(outputs: int, inputs: int, fmt: WeightFormat, keep_itemsize: int) -> int:
    """A byte a weight and a scale of 4 bytes a channel."""
    return outputs * (inputs + 4)


def layout_fp8(outputs: int, inputs: int, fmt: WeightFormat) -> Parts:
    return (
        torch.empty(outputs, inputs, dtype=torch.float8_e4m3fn, device="meta"),
        torch.empty(outputs, 1, dtype=torch.float32, device="meta"),
        None,
    )


def quantize_keep(weight: Tensor, fmt: WeightFormat) -> Parts:
    """The weight itself, not a copy."""
    return weight, None, None


def dequantize_keep(packed: Packed, start: int, stop: int) -> Tensor:
    return packed.codes[start:stop].float()


def grid_keep(weight: Tensor, fmt: WeightFormat) -> tuple[None, None]:
    return None, None


def on_grid_keep(weight: Tensor, grid: Grid) -> Tensor:
    return weight.float()


def keep_bytes(outputs: int, inputs: int, fmt: WeightFormat, keep_itemsize: int) -> int:
    """As many bytes as the weight has."""
    return outputs * inputs * keep_itemsize


FP8 = Format(
    "fp8", "e4m3 floats with a scale for each output channel", quantize_fp8, dequantize_fp8, grid_fp8, on_grid_fp8,
    None, fp8_bytes, layout_fp8,
)  # fmt: skip


KEPT = Format(
    "keep", "the weight as it is", quantize_keep, dequantize_keep, grid_keep, on_grid_keep, None, keep_bytes, None
)  # fmt: skip
