"""A weight format: the sign of each weight that is larger than half the mean magnitude, else 0, and that mean."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.plans.formats import WeightFormat
from bitplan.plans.formats.base import Format, Grid, Packed, Parts


def grid(weight: Tensor, fmt: WeightFormat) -> Parts:
    return {"size": weight.float().abs().mean(1, keepdim=True)}


def _signs(weight: Tensor, size: Tensor) -> Tensor:
    return (weight.float().sign() * (weight.float().abs() > size / 2)).to(torch.int8)


def quantize(weight: Tensor, fmt: WeightFormat) -> Parts:
    size = grid(weight, fmt)["size"]
    return {"signs": _signs(weight, size), "size": size}


def dequantize_rows(packed: Packed, start: int, stop: int) -> Tensor:
    return packed.tensors["signs"][start:stop] * packed.tensors["size"][start:stop]


def on_grid(weight: Tensor, grid: Grid) -> Tensor:
    return _signs(weight, grid.tensors["size"]) * grid.tensors["size"]


def stored_bytes(outputs: int, inputs: int, fmt: WeightFormat, keep_itemsize: int) -> int:
    return outputs * (inputs + 4)


def layout(outputs: int, inputs: int, fmt: WeightFormat) -> Parts:
    return {
        "signs": torch.empty(outputs, inputs, dtype=torch.int8, device="meta"),
        "size": torch.empty(outputs, 1, device="meta"),
    }


TERNARY = Format(quantize, dequantize_rows, grid, on_grid, stored_bytes, layout)
