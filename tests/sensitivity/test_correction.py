"""Corrections: a power law is found again, scatter is left alone, and units do not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bitplan.sensitivity.correction import Correction, chance, fit

SIZES = [10.0**-e for e in range(6)]
numbers = st.floats(-8, 3).map(lambda e: 10.0**e)
pairs = st.lists(st.tuples(numbers, numbers), min_size=6, max_size=20, unique_by=lambda p: p[0])


def fitted(estimates: list[float], measured: list[float]) -> Correction:
    found = fit(estimates, measured)
    assert found is not None
    return found


def test_a_power_law_is_found_again() -> None:
    """measured = 1.2 estimate^0.9, by hand: slope -0.1, and at the centre log 1.2 - 0.1 centre."""
    found = fitted(SIZES, [1.2 * size**0.9 for size in SIZES])
    centre = math.log(10) * -2.5
    assert (found.checks, found.applies) == (6, True)
    assert (found.centre, found.slope) == pytest.approx((centre, -0.1))
    assert found.bias == pytest.approx(math.log(1.2) - 0.1 * centre)
    assert found.scatter == pytest.approx(0, abs=1e-6)
    assert found.factor(1e-3) == pytest.approx(1.2 * 1e-3**-0.1)


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([0.1, 0.07, 1.0, 0.08, 1.0, 1.1, 0.06, 1.0], "8 checks scatter by x4"),
        ([0.1, 0.12, 0.09, 0.1, 0.11, 0.1, 0.1, 0.1], "8 checks differ from estimates by up to x0.1"),
        ([16110.0] * 8, "8 checks differ from estimates by up to x1.61e+04"),
        ([1e4, 1e3, 100.0, 30.0, 10.0, 3.0, 1.0, 1.0], "8 checks differ from estimates by up to x"),
        ([1.6, 0.7, 1.0, 1.5, 0.8, 1.2, 1.4, 0.6], ""),
        ([3.0] * 8, ""),
    ],
    ids=["some layers wrong", "all alike", "far", "a floor of noise", "scatter of probes", "a factor"],
)
def test_checks_that_contradict_the_estimates_raise_an_alarm(ratios: list[float], said: str) -> None:
    sizes = [10.0**-e for e in range(8, 0, -1)]
    found = fitted(sizes, [size * ratio for size, ratio in zip(sizes, ratios, strict=True)])
    assert found.alarm.startswith(said) and bool(found.alarm) is bool(said)
    if said:
        assert [found.factor(size) for size in sizes] == [1.0] * 8


def test_beyond_the_checks_the_factor_stays() -> None:
    found = fitted(SIZES, [1.2 * size**0.9 for size in SIZES])
    assert found.factor(1e-9) == found.factor(1e-5)
    assert found.factor(100.0) == found.factor(1.0)
    assert found.factor(1e-5) > found.factor(1.0)


def test_scatter_by_hand() -> None:
    """Log ratios of 1, -1, -1, 1 at both ends and between have no line: residuals are the ratios themselves."""
    ratios = [1.0, -1.0, -1.0, 1.0, 0.0, 0.0]
    sizes = [-3.0, -1.0, 1.0, 3.0, -2.0, 2.0]
    found = fitted([math.exp(s) for s in sizes], [math.exp(s + r) for s, r in zip(sizes, ratios, strict=True)])
    assert (found.bias, found.slope) == pytest.approx((0, 0), abs=1e-12)
    assert found.scatter == pytest.approx(1.0)
    assert not found.applies
    assert [found.factor(x) for x in (1e-9, 0.5, 1.0, 30.0)] == [1.0] * 4


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_checks_say_nothing(count: int) -> None:
    assert fit(SIZES[:count], SIZES[:count]) is None


def test_what_is_not_positive_is_left_out() -> None:
    """A signed or a vanished number has no logarithm."""
    good = [2 * size for size in SIZES]
    bad = [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, -1.0)]
    assert fit([*SIZES[:5], 0.0], [*good[:5], 1.0]) is None
    assert fit([*SIZES, *(b[0] for b in bad)], [*good, *(b[1] for b in bad)]) == fit(SIZES, good)
    assert [fitted(SIZES, good).factor(x) for x in (0.0, -1.0)] == [1.0, 1.0]


def test_equal_estimates_and_right_ones_are_no_trouble() -> None:
    assert fitted([1.0] * 6, [2.0] * 6).factor(1.0) == pytest.approx(2.0)
    perfect = fitted(SIZES, SIZES)
    assert (perfect.scatter, perfect.applies, perfect.factor(0.01)) == (0.0, False, 1.0)


@given(pairs)
def test_factors_are_positive_and_one_where_nothing_is_shown(some: list[tuple[float, float]]) -> None:
    found = fitted([e for e, _ in some], [m for _, m in some])
    for size in (1e-12, *(e for e, _ in some), 1e6):
        factor = found.factor(size)
        assert 0 < factor < math.inf
        assert found.applies or factor == 1.0


@given(pairs, st.floats(-0.6, 0.6))
def test_units_of_the_measured_scale_the_factors(some: list[tuple[float, float]], exponent: float) -> None:
    scale = 10.0**exponent
    estimates, measured = ([pair[i] for pair in some] for i in (0, 1))
    one, other = fitted(estimates, measured), fitted(estimates, [scale * m for m in measured])
    if one.applies and other.applies and not one.alarm and not other.alarm:
        for size in estimates:
            assert other.factor(size) == pytest.approx(scale * one.factor(size), rel=1e-6)


@given(pairs, st.floats(-3, 3))
def test_units_of_both_change_nothing(some: list[tuple[float, float]], exponent: float) -> None:
    scale = 10.0**exponent
    estimates, measured = ([pair[i] for pair in some] for i in (0, 1))
    one, other = fitted(estimates, measured), fitted([scale * e for e in estimates], [scale * m for m in measured])
    if one.applies == other.applies:
        for size in estimates:
            assert other.factor(scale * size) == pytest.approx(one.factor(size), rel=1e-6)


@given(st.floats(0.001, 1000), st.floats(0.001, 1), st.integers(6, 60))
def test_chance_is_that_of_the_f_test(spread: float, share: float, count: int) -> None:
    left = share * spread
    statistic = ((spread - left) / 2) / (left / (count - 2))
    assert chance(spread, left, count) == pytest.approx(stats.f.sf(statistic, 2, count - 2), rel=1e-6, abs=1e-300)
    assert chance(0.0, 0.0, count) == 1.0


def test_scatter_alone_is_rarely_taken_for_more() -> None:
    rng = np.random.default_rng(0)
    taken = 0
    for _ in range(400):
        estimates = np.exp(rng.normal(-5, 2, 16))
        taken += fitted(estimates.tolist(), (estimates * np.exp(rng.normal(0, 0.3, 16))).tolist()).applies
    assert taken <= 34  # 20 expected at 5 %, three deviations of 4.4 more


@pytest.mark.parametrize("small", [5e-324, 1e-310, 1e-300])
def test_denormal_losses_are_fitted_by_their_logarithms(small: float) -> None:
    """Quotients of them leave the range of floats, and raise an alarm."""
    estimates = [small * k for k in (1, 2, 4, 8, 16, 32)]
    grown = fitted(estimates, [float(k) for k in (1, 2, 4, 8, 16, 32)])
    assert grown.bias == pytest.approx(-math.log(small), rel=1e-2) and "up to x" in grown.alarm
    shrunk = fitted([float(k) for k in (1, 2, 4, 8, 16, 32)], estimates)
    assert shrunk.bias == pytest.approx(math.log(small), rel=1e-2) and "up to x" in shrunk.alarm
