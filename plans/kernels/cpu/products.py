"""The product of int8 codes with a packed integer weight, exact sums in int32, everything else in float32.

With codes a and row scales s of the input, and w = t_g (q - z_g) of the weight for the groups g of inputs,

    y = s * sum over g of (t_g A_g - t_g z_g S_g) + bias,    A_g = sum over k in g of a q,    S_g = sum over k in g of a

where A is exact (`torch._int_mm`), and so is S.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bitplan.plans.formats.storage import Packed, row_blocks, unpack_rows
from bitplan.plans.kernels.base import BLOCK

SEGMENT = 1 << 15  # inputs summed at most in one int32: 2^15 * 255 * 128 < 2^31
OUTPUTS = 1 << 20  # int32 sums held at once, so that they are still in cache when they are scaled


def write_products(out: Tensor, codes: Tensor, scale: Tensor, packed: Packed, bias: Tensor | None) -> None:
    """out (M, O) float32 = the rows (M, K) int8 of `codes`, with their scales (M, 1), times the weight, plus bias (O,).

    The weight is unpacked in blocks of output channels, so that it never exists as a whole; but under `torch.compile`,
    which does not write to columns and fuses what is in between.
    """
    whole = torch.compiler.is_compiling()
    segments = tuple(_segments(packed))
    sums = _sums(codes, packed, segments)
    for start, stop in ((0, packed.outputs),) if whole else row_blocks(packed, BLOCK):
        weight = unpack_rows(packed, start, stop).t()
        scales, offsets = _terms(packed, segments, start, stop)
        part = None if bias is None else bias[start:stop]
        step = len(codes) if whole else max(1, OUTPUTS // (stop - start))
        for top in range(0, len(codes), step):
            rows = slice(top, top + step)
            total = summed(codes[rows], weight, [(first, last) for _, first, last in segments], scales)
            if sums is not None and offsets is not None:
                total.addmm_(sums[rows], offsets, alpha=-1)
            block = out[rows, start:stop]
            if part is None:
                torch.mul(total, scale[rows], out=block)
            else:
                torch.addcmul(part, total, scale[rows], out=block)


def summed(codes: Tensor, weight: Tensor, segments: Sequence[tuple[int, int]], scales: Tensor) -> Tensor:
    """(M, N) float32: codes (M, K) times weight (K, N), both int8, over each segment (start, stop) of the inputs, times
    that segment's scales, of (segments, N); each product is exact in int32."""
    total = None
    for (start, stop), scale in zip(segments, scales, strict=True):
        part = _product(codes[:, start:stop], weight[start:stop])
        total = part.mul_(scale) if total is None else total.addcmul_(part, scale)
    assert total is not None
    return total


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Exact, float32. A column times a row is no business of torch's product, which misreads some of their strides."""
    return torch._int_mm(left, right).float() if left.shape[1] > 1 else left.float() * right.float()


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
