"""The certificate against brute force, and on sums that floats get wrong."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from bitplan.solvers.certify import exact_total, violations
from bitplan.solvers.problem import Budget, Problem
from tests.solvers import oracle

CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def thirds(limit: object, values: list[float]) -> Problem:
    names = tuple(f"g{i}" for i in range(len(values)))
    return Problem(names, (("a",),) * len(values), {"ms": values}, {}, (Budget("ms", limit),))  # type: ignore[arg-type]


@given(problem=oracle.problems())
@CALM
def test_agrees_with_brute_force_on_every_choice(problem: Problem) -> None:
    random, good = np.random.default_rng(0), set(oracle.choices(problem))
    widths = np.diff(problem.offsets)
    for _ in range(30):
        picks = tuple(int(p) for p in problem.offsets[:-1] + random.integers(0, widths))
        assert (not violations(problem, picks)) == (picks in good and oracle.within(problem, picks))


def test_compares_sums_exactly_where_floats_round() -> None:
    values = [0.1, 0.2, 0.3]
    assert violations(thirds(0.6, values), (0, 1, 2))  # the exact sum is 0.6 + 1.7e-17
    assert not violations(thirds(sum(map(Fraction, values)), values), (0, 1, 2))
    assert not violations(thirds(float(2**60), [2.0**60, 0.0]), (0, 1))
    assert violations(thirds(2**60, [2.0**60, 1e-30]), (0, 1))


def test_integers_beyond_float_precision() -> None:
    problem = Problem(("a", "b"), (("x",), ("x",)), {"n": np.array([2**53 - 1, 1])}, {}, (Budget("n", 2**53 - 1),))
    assert violations(problem, (0, 1))[0].excess == 1
    assert exact_total(problem, "n", (0, 1)) == 2**53


@pytest.mark.parametrize("picks", [(), (0,), (0, 0), (0, 5), (-1, 1)])
def test_picks_of_the_wrong_shape(picks: tuple[int, ...]) -> None:
    problem = Problem(("a", "b"), (("x",), ("x",)), {"n": [1, 2]}, {})  # type: ignore[dict-item]
    assert violations(problem, picks)[0].kind == "shape"
