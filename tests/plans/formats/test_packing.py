from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.plans.formats.packing import PLANES, pack, row_bytes, unpack


@pytest.mark.parametrize("bits", PLANES)
def test_a_code_takes_its_bits(bits):
    assert row_bytes(640, bits) * 8 == 640 * bits
    assert sum(PLANES[bits]) == bits


@settings(max_examples=150, deadline=None)
@given(bits=st.sampled_from(list(PLANES)), rows=st.integers(1, 5), inputs=st.integers(1, 70), data=st.data())
def test_round_trip_and_rows_alone(bits, rows, inputs, data):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    seed = data.draw(st.integers(0, 10**6))
    codes = torch.randint(low, high + 1, (rows, inputs), generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    codes[0, 0], codes[-1, -1] = low, high
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (rows, row_bytes(inputs, bits))
    assert row_bytes(inputs, bits) * 8 < inputs * bits + 8 * len(PLANES[bits])
    assert torch.equal(unpack(packed, inputs, bits), codes)
    for row in range(rows):
        assert torch.equal(unpack(packed[row : row + 1], inputs, bits), codes[row : row + 1])


@pytest.mark.parametrize("bits", PLANES)
def test_all_patterns_of_bytes_are_codes(bits):
    """No bit is wasted: every byte pattern unpacks to codes that pack to it."""
    packed = torch.arange(256, dtype=torch.uint8).repeat_interleave(row_bytes(8, bits)).view(256, -1)
    assert torch.equal(pack(unpack(packed, 8, bits), bits), packed)


def test_unpack_does_not_write_to_the_packed_bytes():
    for bits in PLANES:
        packed = pack(torch.ones(3, 16, dtype=torch.int8), bits)
        before = packed.clone()
        unpack(packed, 16, bits)
        assert torch.equal(packed, before)


def test_eight_bits_are_a_view():
    packed = pack(torch.randint(-128, 128, (3, 9)).to(torch.int8), 8)
    assert unpack(packed, 9, 8).data_ptr() == packed.data_ptr()
