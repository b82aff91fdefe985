"""Weights that stay floating point: fp8 (e4m3, Micikevicius et al. 2022, arXiv:2209.05433) and `keep`."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.plans.formats import WeightFormat
from bitplan.plans.formats.base import Format, Grid, Packed, Parts

FP8_MAX = 448.0  # the largest finite e4m3fn
_TINY = torch.finfo(torch.float32).tiny
_LARGEST = torch.finfo(torch.float32).max * (1 - 2**-22) / FP8_MAX  # times 448 it is finite


def quantize_fp8(weight: Tensor, fmt: WeightFormat) -> Parts:
    """Codes (O, K) float8_e4m3fn and scale (O, 1) = largest magnitude / 448."""
    weight = weight.float()
    scale = grid_fp8(weight, fmt)["scale"]
    return {"codes": (weight / scale).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), "scale": scale}


def dequantize_fp8(packed: Packed, start: int, stop: int) -> Tensor:
    return packed.tensors["codes"][start:stop].float().mul_(packed.tensors["scale"][start:stop])


def grid_fp8(weight: Tensor, fmt: WeightFormat) -> Parts:
    scale = (weight.float().abs().amax(1, keepdim=True) / FP8_MAX).clamp_max_(_LARGEST)
    return {"scale": torch.where(scale < _TINY, 1.0, scale)}


def on_grid_fp8(weight: Tensor, grid: Grid) -> Tensor:
    scale = grid.tensors["scale"]
    codes = (weight.float() / scale).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return codes.float().mul_(scale)


def fp8_bytes(outputs: int, inputs: int, fmt: WeightFormat, keep_itemsize: int) -> int:
    """A byte a weight and a scale of 4 bytes a channel."""
    return outputs * (inputs + 4)


def layout_fp8(outputs: int, inputs: int, fmt: WeightFormat) -> Parts:
    return {
        "codes": torch.empty(outputs, inputs, dtype=torch.float8_e4m3fn, device="meta"),
        "scale": torch.empty(outputs, 1, dtype=torch.float32, device="meta"),
    }


def quantize_keep(weight: Tensor, fmt: WeightFormat) -> Parts:
    """The weight itself, not a copy."""
    return {"codes": weight}


def dequantize_keep(packed: Packed, start: int, stop: int) -> Tensor:
    return packed.tensors["codes"][start:stop].float()


def grid_keep(weight: Tensor, fmt: WeightFormat) -> Parts:
    return {}


def on_grid_keep(weight: Tensor, grid: Grid) -> Tensor:
    return weight.float()


def keep_bytes(outputs: int, inputs: int, fmt: WeightFormat, keep_itemsize: int) -> int:
    """As many bytes as the weight has."""
    return outputs * inputs * keep_itemsize


FP8 = Format(quantize_fp8, dequantize_fp8, grid_fp8, on_grid_fp8, fp8_bytes, layout_fp8)
KEPT = Format(quantize_keep, dequantize_keep, grid_keep, on_grid_keep, keep_bytes)
