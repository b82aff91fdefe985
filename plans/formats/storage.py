"""Weights packed, unpacked and rounded as a weight format says.

packed = quantize(linear.weight, parse_scheme("w3g64ma8").weight)
packed.nbytes == stored_bytes(linear.weight.shape, packed.format)
dequantize(packed)                                 # float32, the shape of the weight
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from bitplan.plans.formats import FORMATS, WeightFormat
from bitplan.plans.formats.base import Format, FormatError, Grid, Packed, flattened, row_blocks, shaped

__all__ = ["FormatError", "Grid", "Packed", "dequantize", "dequantize_rows", "empty", "flattened", "grid_of", "on_grid",
           "quantize", "row_blocks", "shaped", "stored_bytes", "unpack_rows"]  # fmt: skip
_BLOCK = 1 << 20


@torch.no_grad()
def quantize(weight: Tensor, fmt: WeightFormat) -> Packed:
    """Stores `weight` (outputs, inputs...) as `fmt` says. Raises FormatError on NaN, infinite or no weights."""
    return Packed(_format(fmt).quantize(_checked(weight), fmt), tuple(weight.shape), fmt)


def empty(shape: Sequence[int], fmt: WeightFormat) -> Packed:
    """What `quantize` gives a weight of `shape`, without data: on the meta device. Raises FormatError for `keep`."""
    layout = _format(fmt).layout
    if layout is None:
        raise FormatError(f"`{fmt}` stores a weight as it comes; leave this layer as it is")
    return Packed(layout(shape[0], prod(shape[1:]), fmt), tuple(shape), fmt)


def _format(fmt: WeightFormat) -> Format:
    """The code of a format. Raises FormatError for a kind that is not in the table."""
    if fmt.kind not in FORMATS:
        raise FormatError(f"there is no weight format {fmt.kind!r}; choose one of {', '.join(FORMATS)}")
    member: Format = FORMATS[fmt.kind].member
    return member


def _checked(weight: Tensor) -> Tensor:
    """One row for each output."""
    if weight.dim() < 2 or weight.numel() == 0:
        raise FormatError(f"a weight of shape {tuple(weight.shape)} has nothing to store; leave this layer out")
    flat = flattened(weight.detach())
    if not all(bool(torch.isfinite(bound)) for bound in torch.aminmax(flat)):  # NaN is both bounds
        bad = sum(int((~block.isfinite()).sum()) for block in flat.split(max(1, _BLOCK // flat.shape[1])))
        raise FormatError(f"{bad} of {weight.numel()} weights are NaN or infinite; repair the checkpoint")
    return flat


@torch.no_grad()
def dequantize(packed: Packed) -> Tensor:
    """The weight that `packed` stands for: float32, of its original shape."""
    weight = torch.empty(packed.outputs, packed.inputs, dtype=torch.float32, device=packed.device)
    for start, stop in row_blocks(packed, _BLOCK):
        weight[start:stop] = dequantize_rows(packed, start, stop)
    return shaped(weight, packed.shape)


@torch.no_grad()
def grid_of(weight: Tensor, fmt: WeightFormat) -> Grid:
    """The grid on which `fmt` stores `weight`: all that takes time to find. Raises as `quantize`."""
    return Grid(_format(fmt).grid(_checked(weight), fmt), fmt)


@torch.no_grad()
def on_grid(weight: Tensor, grid: Grid) -> Tensor:
    """`weight` rounded to its grid, float32: `dequantize(quantize(weight, grid.format))` to the bit, in no time."""
    return shaped(_format(grid.format).on_grid(flattened(weight.detach()), grid), weight.shape)


def dequantize_rows(packed: Packed, start: int, stop: int) -> Tensor:
    """(stop - start, K) float32: the output channels start .. stop, flattened."""
    return _format(packed.format).dequantize_rows(packed, start, stop)


def unpack_rows(packed: Packed, start: int, stop: int) -> Tensor:
    """(stop - start, K) int8 codes of the output channels start .. stop. Raises FormatError if they are no integers."""
    rows = _format(packed.format).unpack_rows
    if rows is None:
        raise FormatError(f"`{packed.format}` has no integer codes to unpack; use dequantize_rows")
    return rows(packed, start, stop)


def stored_bytes(shape: Sequence[int], fmt: WeightFormat, keep_itemsize: int = 4) -> int:
    """Bytes of a weight of `shape` stored as `fmt`: codes, scales, zero points and padding. keep_itemsize: bytes per
    element of the float weight, for `keep`."""
    return _format(fmt).stored_bytes(shape[0], prod(shape[1:]), fmt, keep_itemsize)
