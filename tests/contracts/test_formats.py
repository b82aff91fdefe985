"""What every line of the format table promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.plans.formats import FORMATS, integer
from bitplan.plans.formats.storage import (
    FormatError,
    dequantize,
    dequantize_rows,
    grid_of,
    on_grid,
    quantize,
    row_blocks,
    stored_bytes,
    unpack_rows,
)
from bitplan.plans.scheme import WEIGHT_BITS, WeightFormat

torch.set_num_threads(1)
INTEGERS = [
    WeightFormat("int", bits, group, affine, least)
    for bits in WEIGHT_BITS
    for group in (None, 32, 64)
    for affine in (False, True)
    for least in (False, True)
]
OTHERS = [WeightFormat(line.name, **term) for line in FORMATS.values() if line.name != "int" for term in line.every()]
ALL = [*INTEGERS, *OTHERS]
SHAPES = [(1, 1), (3, 7), (8, 64), (5, 65), (2, 200), (4, 3, 3, 3), (6, 8, 1, 1)]


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_bytes_from_the_shape_are_the_bytes_held(fmt):
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            packed = quantize(torch.randn(shape).to(dtype), fmt)
            held = sum(t.numel() * t.element_size() for t in packed.tensors.values())
            assert held == packed.nbytes == stored_bytes(shape, fmt, keep_itemsize=dtype.itemsize)


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_rows_agree_with_the_whole_and_shapes_return(fmt):
    for shape in SHAPES:
        packed = quantize(torch.randn(shape), fmt)
        whole = dequantize(packed)
        assert whole.shape == shape and whole.dtype == torch.float32
        flat = whole.movedim(1, -1).reshape(shape[0], -1)
        for start, stop in row_blocks(packed, 64):
            assert torch.equal(dequantize_rows(packed, start, stop), flat[start:stop])


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_rounding_to_the_grid_is_packing_and_back(fmt, monkeypatch):
    monkeypatch.setattr(integer, "BLOCK", 100)  # several blocks
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            weight = torch.randn(shape).to(dtype)
            assert torch.equal(on_grid(weight, grid_of(weight, fmt)), dequantize(quantize(weight, fmt)))


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_zeros_stay_exact(fmt):
    weight = torch.randn(5, 130)
    weight[2] = 0
    weight[3, 32:96] = 0
    weight[4, ::3] = 0
    back = dequantize(quantize(weight, fmt))
    assert bool((back[weight == 0] == 0).all())
    assert bool(back.isfinite().all())


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_bad_weights_are_refused_with_a_count(fmt):
    weight = torch.ones(4, 40)
    weight[1, 2], weight[3, 39], weight[0, 0] = float("nan"), float("inf"), -float("inf")
    with pytest.raises(FormatError, match="3 of 160"):
        quantize(weight, fmt)
    for shape in ((3,), (0, 4), (4, 0)):
        with pytest.raises(FormatError, match="nothing to store"):
            quantize(torch.ones(shape), fmt)


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_the_same_weight_gives_the_same_bytes_and_is_not_changed(fmt):
    weight = torch.randn(9, 70)
    before = weight.clone()
    one, two = quantize(weight, fmt), quantize(weight.clone(), fmt)
    assert torch.equal(weight, before)
    assert one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(t.view(torch.uint8), two.tensors[name].view(torch.uint8)) for name, t in one.tensors.items())


@pytest.mark.parametrize("fmt", [fmt for fmt in OTHERS if FORMATS[fmt.kind].member.unpack_rows is None], ids=str)
def test_formats_without_integers_say_so(fmt):
    with pytest.raises(FormatError, match="no integer codes"):
        unpack_rows(quantize(torch.ones(2, 8), fmt), 0, 1)


@pytest.mark.parametrize("fmt", INTEGERS, ids=str)
def test_codes_scales_and_zeros_are_the_weight(fmt):
    """w = scale * (code - zero), in float64, from the stored parts alone."""
    packed = quantize(torch.randn(4, 100), fmt)
    codes = unpack_rows(packed, 0, 4).double()
    assert codes.min() >= -(2 ** (fmt.bits - 1)) and codes.max() <= 2 ** (fmt.bits - 1) - 1
    size = fmt.group or 100
    group_of = torch.arange(100) // size
    zero = 0 if not fmt.affine else packed.tensors["zero"].double()[:, group_of] - 2 ** (fmt.bits - 1)
    expected = packed.tensors["scale"].double()[:, group_of] * (codes - zero)
    torch.testing.assert_close(dequantize(packed).double(), expected, rtol=1e-6, atol=0)
    if fmt.affine:
        assert int(packed.tensors["zero"].max()) < 2**fmt.bits


@pytest.mark.parametrize("fmt", [f for f in INTEGERS if not f.least_squares], ids=str)
def test_min_max_errs_by_half_a_step(fmt):
    weight = torch.randn(6, 96) * torch.logspace(-6, 6, 6)[:, None]
    packed = quantize(weight, fmt)
    step = packed.tensors["scale"].repeat_interleave(fmt.group or 96, 1)[:, :96]
    # an affine zero point is rounded, which can clip an end by half a step more
    assert bool(((dequantize(packed) - weight).abs() <= step * (1.0 if fmt.affine else 0.5) * (1 + 1e-4)).all())


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(WEIGHT_BITS), group=st.sampled_from((None, 32)), affine=st.booleans(),
    seed=st.integers(0, 10**6), power=st.sampled_from((1, 3, 9)), shift=st.sampled_from((0.0, 2.0)),
)  # fmt: skip
def test_least_squares_is_never_worse_than_min_max(bits, group, affine, seed, power, shift):
    noise = torch.randn(3, 70, generator=torch.Generator().manual_seed(seed))
    weight = noise**power + shift
    backs = [dequantize(quantize(weight, WeightFormat("int", bits, group, affine, least))) for least in (True, False)]
    errors = [(back - weight).double().square().sum(1) for back in backs]
    assert bool((errors[0] <= errors[1] * (1 + 1e-5)).all())


@pytest.mark.parametrize("affine", [False, True])
def test_least_squares_pays_at_low_bits(affine):
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    errors = [
        float((dequantize(quantize(weight, WeightFormat("int", 3, None, affine, least))) - weight).square().sum())
        for least in (True, False)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("fmt", INTEGERS, ids=str)
def test_extreme_magnitudes_stay_finite(fmt):
    for size in (1e38, 1e-30, 1e-44):
        weight = torch.full((2, 64), size)
        weight[1] *= torch.linspace(-1, 1, 64)
        back = dequantize(quantize(weight, fmt))
        assert bool(back.isfinite().all())
        assert bool(((back - weight).abs() <= size * 1.01).all())


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_the_largest_weights_stay_finite(fmt):
    """The error is at most a step, also where a step more would be beyond float32."""
    largest, line = torch.finfo(torch.float32).max, torch.linspace(-1, 1, 64)
    for shares in (line, line.abs(), -line.abs(), line.sign(), torch.ones(64), 0.9 - 1.2 * (line == 1), line * 0.88):
        weight = (shares * largest).repeat(2, 1)
        packed = quantize(weight, fmt)
        back = dequantize(packed)
        assert bool(back.isfinite().all()) and torch.equal(back, on_grid(weight, grid_of(weight, fmt)))
        if fmt.kind == "int" and not fmt.least_squares:
            step = packed.tensors["scale"].double().amax(1, keepdim=True)
            assert bool(((back.double() - weight.double()).abs() <= 1.01 * step).all())


def test_fp8_is_the_scaled_e4m3_rounding():
    weight = torch.randn(4, 50)
    packed = quantize(weight, WeightFormat("fp8", 8))
    assert packed.tensors["codes"].dtype == torch.float8_e4m3fn
    assert bool((packed.tensors["codes"].float().abs().amax(1) == 448).all())
    # 3 bits of mantissa: half a unit in the last place is 1/16 of the value; below 2^-6 steps are 2^-9
    bound = torch.maximum(weight.abs() / 16, packed.tensors["scale"] * 2**-10)
    assert bool(((dequantize(packed) - weight).abs() <= bound * (1 + 1e-5)).all())
