"""The contract of every line in the table of input formats."""

from __future__ import annotations

import pytest
import torch

from bitplan.plans.inputs import INPUTS, InputFormat
from bitplan.plans.inputs.base import ActivationScales

ALL = [InputFormat(line.name, **term) for line in INPUTS.values() for term in line.every()]
SHAPES = [(1, 1), (3, 7), (2, 5, 64), (2, 2, 3, 33)]


def rounded(x: torch.Tensor, fmt: InputFormat) -> torch.Tensor:
    """`x` rounded and back; a static format gets the range of `x`."""
    scales = ActivationScales(float(x.abs().max())) if fmt.static else None
    found: torch.Tensor = INPUTS[fmt.kind].member.fake(x, fmt, scales)
    return found


@pytest.mark.parametrize("fmt", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shape_and_type_stay_and_the_input_is_not_changed(fmt: InputFormat, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        x = torch.randn(shape, dtype=dtype)
        before = x.clone()
        out = rounded(x, fmt)
        assert out.shape == x.shape and out.dtype == x.dtype and torch.equal(x, before)


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_zeros_stay_exact(fmt: InputFormat) -> None:
    x = torch.randn(4, 32)
    x[:, ::2] = 0
    x[1] = 0
    assert bool((rounded(x, fmt)[x == 0] == 0).all())


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_the_error_is_at_most_half_a_step_of_so_many_bits(fmt: InputFormat) -> None:
    x = torch.randn(8, 200)
    steps = 2 ** (fmt.bits - 1) - 1
    assert float((rounded(x, fmt) - x).abs().max()) <= 0.501 * float(x.abs().max()) / steps


@pytest.mark.parametrize("line", INPUTS.values(), ids=INPUTS)
def test_more_bits_lose_less(line: object) -> None:
    x = torch.randn(8, 200)
    terms = sorted(
        (fmt for fmt in ALL if fmt.kind == getattr(line, "name", "") and not fmt.static), key=lambda f: f.bits
    )
    errors = [float((rounded(x, fmt) - x).square().mean()) for fmt in terms]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == len(errors)


@pytest.mark.parametrize("fmt", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_row_that_is_not_finite_is_nan_and_the_others_are_as_without_it(fmt: InputFormat, dtype: torch.dtype) -> None:
    """Formats that do not round leave it as it is."""
    x = torch.randn(5, 9, dtype=dtype)
    written, scales = x.clone(), ActivationScales(2.5) if fmt.static else None
    for row, bad in enumerate((float("nan"), float("inf"), -float("inf"), torch.finfo(dtype).max / 2)):
        written[row, 7] = bad
    out, clean = (INPUTS[fmt.kind].member.fake(given, fmt, scales) for given in (written, x))
    assert torch.equal(out[4], clean[4])
    if fmt.bits == 16:
        assert torch.equal(out.isfinite(), written.isfinite())
    else:
        assert bool(out[:3].isnan().all())
        assert bool(out[3].isfinite().all()) == (dtype != torch.float64)  # its largest is beyond float32
