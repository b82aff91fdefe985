"""Signed codes of 8, 6, 5, 4, 3 or 2 bits, packed densely, one output channel (row) after the other.

A width is cut into planes of 4, 2 or 1 bits (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2). In each plane of a row, byte i holds the
codes i, i + Q, i + 2Q ... from the low bits up, where Q is the plane's bytes per row: to unpack is a shift and a mask
over whole runs. A code c is stored as c + 2^(bits - 1); codes of 8 bits are stored as they are. Where the inputs are no
multiple of 8 each plane of a row is rounded up to whole bytes, and `row_bytes` counts that.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

PLANES = {8: (8,), 6: (4, 2), 5: (4, 1), 4: (4,), 3: (2, 1), 2: (2,)}  # from the low bits up


def row_bytes(inputs: int, bits: int) -> int:
    """Bytes of one packed row of `inputs` codes."""
    return sum(-(-inputs * plane // 8) for plane in PLANES[bits])


def pack(codes: Tensor, bits: int) -> Tensor:
    """(rows, inputs) int8 codes in -2^(bits-1) .. 2^(bits-1)-1 to (rows, row_bytes) uint8."""
    if bits == 8:
        return codes.contiguous().view(torch.uint8)
    unsigned = (codes.to(torch.int16) + (1 << (bits - 1))).to(torch.uint8)
    planes, low = [], 0
    for plane in PLANES[bits]:
        planes.append(_pack_plane((unsigned >> low) & ((1 << plane) - 1), plane))
        low += plane
    return torch.cat(planes, dim=1)


def unpack(packed: Tensor, inputs: int, bits: int) -> Tensor:
    """The reverse of `pack`: (rows, row_bytes) uint8 to (rows, inputs) int8; a view where bits is 8."""
    if bits == 8:
        return packed.view(torch.int8)
    codes, start, low = None, 0, 0
    for plane in PLANES[bits]:
        stop = start + -(-inputs * plane // 8)
        part = _unpack_plane(packed[:, start:stop], inputs, plane)
        codes = part if codes is None else codes.bitwise_or_(part.bitwise_left_shift_(low))
        start, low = stop, low + plane
    assert codes is not None
    return codes.view(torch.int8).sub_(1 << (bits - 1))


def _pack_plane(values: Tensor, plane: int) -> Tensor:
    per_byte = 8 // plane
    rows, inputs = values.shape
    width = -(-inputs // per_byte)
    runs = pad(values, (0, width * per_byte - inputs)).view(rows, per_byte, width)
    packed = runs[:, 0].clone()
    for index in range(1, per_byte):
        packed |= runs[:, index] << (index * plane)
    return packed


def _unpack_plane(packed: Tensor, inputs: int, plane: int) -> Tensor:
    shifts = torch.arange(0, 8, plane, dtype=torch.uint8, device=packed.device).unsqueeze(1)
    runs = torch.bitwise_right_shift(packed.unsqueeze(1), shifts)
    return runs.flatten(1)[:, :inputs].bitwise_and_((1 << plane) - 1)
