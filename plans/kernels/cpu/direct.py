"""Convolutions of int8 codes as float32 convolutions, for processors that multiply floats faster than int8 codes.

No columns are gathered. Input channels are taken in blocks, so that no sum of a block exceeds 2^24 and each is exact;
the sums of the blocks are added exactly and rounded once. oneDNN is asked for its direct algorithm, which, unlike
Winograd's, only multiplies and adds codes.
"""

from __future__ import annotations

import platform
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from bitplan.plans.formats.storage import Packed, unpack_rows
from bitplan.plans.geometry import Geometry
from bitplan.plans.kernels.cpu.paths import DEPTH, blocks_of, exact_total
from bitplan.plans.kernels.cpu.products import SEGMENT, portions, row_factors, write_scaled

WEIGHTS = 1 << 22  # weights converted at once: smaller blocks of outputs convolve slower
HELD = 1 << 24  # bytes of converted inputs and of sums at once
_AVAILABLE = torch.backends.mkldnn.is_available() and platform.machine().lower() in ("x86_64", "amd64")
_LANES = 8  # channels, inputs or outputs, are taken in multiples of it where there are as many


def takes(packed: Packed, geometry: Geometry) -> bool:
    """Whether this convolution is computed here: one symmetric scale an output channel, sums within int32, and a oneDNN
    whose direct algorithm is known to be what it says."""
    whole = packed.format.group is None and "zero" not in packed.tensors and packed.inputs <= SEGMENT
    return _AVAILABLE and whole and prod(geometry.kernel_size) <= DEPTH


def write_convolution(
    out: Tensor, codes: Tensor, scale: Tensor, packed: Packed, bias: Tensor | None, geometry: Geometry
) -> None:
    """out (N, ..., O) float32 = the convolution of codes (N, ..., C) int8, with their scales (N, 1), plus bias (O,)."""
    padded, (outputs, channels) = pad(codes, (0, 0, *geometry.pads)), packed.shape[:2]
    step = max(_LANES, WEIGHTS // packed.inputs // _LANES * _LANES)
    early, late = row_factors(scale, packed.tensors["scale"])
    for first in range(0, outputs, step):
        part = slice(first, min(first + step, outputs))
        rows = unpack_rows(packed, part.start, part.stop)
        weight = rows.view(len(rows), *geometry.kernel_size, channels).float()
        bytes_each = 4 * (channels * prod(geometry.stride) + 3 * len(rows))
        for some, *box in portions(out.shape[:-1], bytes_each, HELD):
            sums = _convolved(padded[(some, *_windows(box, geometry))].float(), weight, geometry)
            block = out[(some, *box)].view(-1, outputs)[:, part]
            times = len(block) // len(scale[some])
            total = sums.reshape(block.shape)
            if early is not None:
                total.mul_(early[some].repeat_interleave(times, 0))
            total.mul_(packed.tensors["scale"][part].view(-1))
            write_scaled(block, total, late[some].repeat_interleave(times, 0), None if bias is None else bias[part])


def _windows(box: list[slice], geometry: Geometry) -> list[slice]:
    """What the output positions in the box read of the padded input."""
    return [
        slice(its.start * stride, (its.stop - 1) * stride + dilation * (kernel - 1) + 1)
        for its, (kernel, stride, dilation, _) in zip(box, geometry.sizes, strict=True)
    ]


def _convolved(codes: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """(N, ..., O) exact sums, rounded once, of (N, ..., C) codes and (O, ..., C) weights, both float32, unpadded."""
    none = (0,) * len(geometry.stride)
    codes, weight = codes.movedim(-1, 1), weight.movedim(-1, 1)
    sums = exact_total(
        torch.mkldnn_convolution(codes[:, a:b], weight[:, a:b], None, none, geometry.stride, geometry.dilation, 1)
        for a, b in _channel_blocks(codes.shape[1], DEPTH // prod(geometry.kernel_size))
    )
    return sums.movedim(1, -1)


def _channel_blocks(channels: int, most: int) -> list[tuple[int, int]]:
    """Runs of at most `most` channels, in multiples of `_LANES` where `most` is that many."""
    if most < _LANES:
        return blocks_of(channels, most)
    lanes = blocks_of(-(-channels // _LANES), most // _LANES)
    return [(start * _LANES, min(stop * _LANES, channels)) for start, stop in lanes]
