from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.plans.inputs import INPUTS, InputFormat
from bitplan.plans.inputs import integer as activations
from bitplan.plans.inputs.base import ActivationError, ActivationScales
from bitplan.plans.inputs.integer import fake_quantize, quantize_rows
from bitplan.plans.kinds import KINDS

torch.set_num_threads(1)


def by_hand(rows: np.ndarray, ranges: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    largest = 2 ** (bits - 1) - 1
    scale = (ranges / np.float32(largest)).astype(np.float32)[:, None]
    scale[scale == 0] = 1
    return np.clip(np.rint(rows / scale), -largest, largest), scale


@settings(max_examples=60, deadline=None)
@given(bits=st.sampled_from((8, 6, 4)), seed=st.integers(0, 10**6), rows=st.integers(1, 6), width=st.integers(1, 40))
def test_dynamic_rows_equal_numpy(bits, seed, rows, width):
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 10
    codes, scale = quantize_rows(x, InputFormat("int", bits))
    expected, expected_scale = by_hand(x.numpy(), np.abs(x.numpy()).max(1), bits)
    assert codes.dtype == torch.int8 and scale.shape == (rows, 1)
    assert np.array_equal(codes.numpy(), expected) and np.array_equal(scale.numpy(), expected_scale)


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_one_calibration_serves_every_width_and_clamps(bits):
    x = torch.tensor([[1.0, -4.0, 400.0, -400.0, 0.0]])
    codes, scale = quantize_rows(x, InputFormat("int", bits, static=True), ActivationScales(4.0))
    largest = 2 ** (bits - 1) - 1
    assert codes.tolist()[0][1:] == [-largest, largest, -largest, 0]
    assert float(scale) == pytest.approx(4 / largest)


def test_the_first_token_has_its_own_scale():
    fmt = InputFormat("int", 8, True)
    x = torch.ones(2, 3, 5)
    x[:, 0] = 100
    codes, scale = quantize_rows(x, fmt, ActivationScales(1.0, 100.0))
    assert bool((codes == 127).all())
    torch.testing.assert_close(scale.view(2, 3), torch.tensor([[100.0, 1, 1]] * 2) / 127)
    torch.testing.assert_close(fake_quantize(x, fmt, ActivationScales(1.0, 100.0)), x)


def test_a_first_token_needs_tokens():
    with pytest.raises(ActivationError, match="batch, tokens, features"):
        quantize_rows(torch.ones(2, 5), InputFormat("int", 8, True), ActivationScales(1.0, 2.0))


def test_static_needs_a_calibration():
    with pytest.raises(ActivationError, match="calibrate"):
        quantize_rows(torch.ones(1, 2, 5), InputFormat("int", 8, True), None)
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ActivationError, match="finite"):
            ActivationScales(bad)


@pytest.mark.parametrize("fmt", [InputFormat("int", 8), InputFormat("int", 4, True)], ids=str)
def test_blocks_do_not_show(fmt, monkeypatch):
    x = torch.randn(7, 33)
    whole = quantize_rows(x, fmt, ActivationScales(2.0))
    for block in (1, 8, 33, 70):
        monkeypatch.setattr(activations, "BLOCK", block)
        assert all(torch.equal(a, b) for a, b in zip(whole, quantize_rows(x, fmt, ActivationScales(2.0)), strict=True))


def test_bfloat16_never_wraps():
    x = torch.randn(500, 64).bfloat16()
    codes, scale = quantize_rows(x, InputFormat("int", 8))
    assert int(codes.min()) >= -127
    assert bool(((codes * scale - x.float()).abs() <= scale * 0.5001).all())


def test_zero_rows_and_nan_rows():
    x = torch.zeros(3, 4)
    x[1, 2], x[2, 0] = float("nan"), 1e-42
    codes, scale = quantize_rows(x, InputFormat("int", 8))
    assert float(scale[0]) == 1 and not codes[0].any() and not codes[2].any()
    assert bool(torch.isnan(codes[1] * scale[1]).all()), "a NaN must not turn into a number"


def test_sixteen_bits_pass_and_rows_of_a_convolution_are_samples():
    x = torch.randn(2, 3, 4, 5)
    assert INPUTS["float"].member.fake(x, InputFormat(), None) is x
    assert KINDS["conv2d"].rows(x).shape == (2, 60) and KINDS["conv2d"].rows(x[0]).shape == (1, 60)
    assert KINDS["conv3d"].rows(x).shape == (1, 120) and KINDS["conv3d"].rows(x[None]).shape == (1, 120)
    assert KINDS["conv1d"].rows(x[0, 0]).shape == (1, 20) and KINDS["conv1d"].rows(x[0]).shape == (3, 20)
    with pytest.raises(ActivationError):
        quantize_rows(x, InputFormat())
