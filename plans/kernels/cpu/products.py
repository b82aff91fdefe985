"""The product of int8 codes with a packed integer weight: exact sums of integers, everything else in float32.

With codes a and row scales s of the input, and w = t_g (q - z_g) of the weight for the groups g of inputs,

    y = s * sum over g of (t_g A_g - t_g z_g S_g) + bias,    A_g = sum over k in g of a q,    S_g = sum over k in g of a

where A is exact on each path of `bitplan.plans.kernels.cpu.paths`, and so is S. It is computed in this order, but for
weights of huge scales, whose sums times t could be beyond float32: there A and S are multiplied by min(s, 1) first, and
the total by max(s, 1), so that nothing overflows or underflows that would not do so in y.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from bitplan.plans.formats.storage import Packed, row_blocks, unpack_rows
from bitplan.plans.kernels.base import BLOCK
from bitplan.plans.kernels.cpu.paths import ProductPath

SEGMENT = 1 << 15  # inputs summed at most in one int32: 2^15 * 255 * 128 < 2^31
OUTPUTS = 1 << 20  # sums held at once, so that they are still in cache when they are scaled
LINES = 64  # outputs in a few cache lines: blocks that begin elsewhere take up to 1.4 times as long
OPERANDS = 1 << 22  # codes of the input converted at once
HUGE = 2.0**64  # scales of weights above it, times a sum, could be beyond float32; trained weights have none


def write_products(
    out: Tensor, codes: Tensor, scale: Tensor, packed: Packed, bias: Tensor | None, path: ProductPath
) -> None:
    """out (M, O) float32 = the rows (M, K) int8 of `codes`, with their scales (M, 1), times the weight, plus bias (O,).

    The weight is unpacked in blocks of output channels, so that the whole weight never exists, except under
    `torch.compile`, which does not write to columns, fuses the operations in between, and makes one graph for all
    numbers of rows.
    """
    whole = torch.compiler.is_compiling()
    segments = tuple(_segments(packed))
    bounds = [(first, last) for _, first, last in segments]
    sums = _sums(codes, packed, segments)
    early, late = row_factors(scale, packed.tensors["scale"])
    for start, stop in ((0, packed.outputs),) if whole else row_blocks(packed, _block(packed)):
        weight = path.operand(unpack_rows(packed, start, stop)).t()
        scales, offsets = _terms(packed, segments, start, stop)
        part = None if bias is None else bias[start:stop]
        for rows in (slice(None),) if whole else _runs(len(codes), packed.inputs, stop - start):
            factor = None if early is None else early[rows]
            total = summed(path.operand(codes[rows]), weight, bounds, scales, path, factor)
            if sums is not None and offsets is not None:
                total.addmm_(sums[rows] if factor is None else sums[rows] * factor, offsets, alpha=-1)
            write_scaled(out[rows, start:stop], total, late[rows], part)


def _runs(rows: int, inputs: int, outputs: int) -> Iterator[slice]:
    """Of as many rows as are multiplied at once."""
    step = max(1, min(OUTPUTS // outputs, OPERANDS // inputs))
    for top in range(0, rows, step):
        yield slice(top, top + step)


def _block(packed: Packed) -> int:
    """About `BLOCK` weights, of a multiple of `LINES` output channels where they are as many."""
    channels = max(1, BLOCK // packed.inputs)
    return (channels // LINES * LINES or channels) * packed.inputs


def row_factors(rows: Tensor, weights: Tensor) -> tuple[Tensor | None, Tensor]:
    """Row scales (M, 1) as two factors, for sums before and after they are multiplied by the scales of weights; None
    for 1. `torch.compile` makes one graph for all weights, so that it always gets two."""
    if torch.compiler.is_compiling():
        huge = weights.max() > HUGE
        return torch.where(huge, rows.clamp(max=1), 1.0), torch.where(huge, rows.clamp(min=1), rows)
    return (rows.clamp(max=1), rows.clamp(min=1)) if float(weights.max()) > HUGE else (None, rows)


def write_scaled(out: Tensor, total: Tensor, scale: Tensor, bias: Tensor | None) -> None:
    """out (M, N) = total (M, N) times the rows' scales (M, 1), plus bias (N,)."""
    if bias is None:
        torch.mul(total, scale, out=out)
    else:
        torch.addcmul(bias, total, scale, out=out)


def summed(
    left: Tensor, right: Tensor, segments: Sequence[tuple[int, int]], scales: Tensor, path: ProductPath,
    early: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(M, N) float32: operands of `path` (M, K) and (K, N), multiplied over each segment (start, stop) of the inputs,
    times `early` (M, 1), times that segment's scales, of (segments, N)."""
    total = None
    for (start, stop), scale in zip(segments, scales, strict=True):
        part = path.product(left[:, start:stop], right[start:stop])
        if early is not None:
            part.mul_(early)
        total = part.mul_(scale) if total is None else total.addcmul_(part, scale)
    assert total is not None
    return total


def portions(sizes: Sequence[int], each: int, most: int) -> Iterator[tuple[slice, ...]]:
    """Samples and output positions, of (N, ...), that hold `most` bytes at most at `each` a position, or are one
    position; their outputs lie in a run."""
    step = max(1, most // (prod(sizes[1:]) * each))
    whole = [slice(0, size) for size in sizes[1:]]
    for start in range(0, sizes[0], step):
        first = slice(start, min(start + step, sizes[0]))
        if step > 1 or not whole:
            yield first, *whole
        else:
            yield from ((first, *rest) for rest in portions(sizes[1:], each, most))


def _segments(packed: Packed) -> Iterator[tuple[int, int, int]]:
    """(group, start, stop): every group, cut where its sum could leave int32."""
    size = packed.format.group or packed.inputs
    for group, start in enumerate(range(0, packed.inputs, size)):
        end = min(start + size, packed.inputs)
        for first in range(start, end, SEGMENT):
            yield group, first, min(first + SEGMENT, end)


def _terms(
    packed: Packed, segments: Sequence[tuple[int, int, int]], start: int, stop: int
) -> tuple[Tensor, Tensor | None]:
    """Scale, and scale * zero of affine weights, of the output channels start .. stop: (segments, outputs) each."""
    scale = _by_segment(packed.tensors["scale"][start:stop], segments)
    if not packed.format.affine:
        return scale, None
    zero = _by_segment(packed.tensors["zero"][start:stop], segments).float()
    return scale, scale * (zero - (1 << (packed.format.bits - 1)))


def _by_segment(values: Tensor, segments: Sequence[tuple[int, int, int]]) -> Tensor:
    """(outputs, groups) to (segments, outputs)."""
    groups = [group for group, _, _ in segments]
    return values.t() if len(groups) == values.shape[1] else values.t()[groups]


def _sums(codes: Tensor, packed: Packed, segments: Sequence[tuple[int, int, int]]) -> Tensor | None:
    """(M, segments) float32: the sums of each row's codes over each segment; None for symmetric weights."""
    if not packed.format.affine:
        return None
    return torch.stack([codes[:, first:last].sum(1, dtype=torch.int32) for _, first, last in segments], 1).float()
