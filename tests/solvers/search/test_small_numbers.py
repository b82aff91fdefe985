"""Objectives down to the smallest float64 numbers are minimised, with several budgets too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.solvers.problem import Budget, Problem, ProblemError
from bitplan.solvers.questions.regret import _needed
from bitplan.solvers.solve import solve


def problem(size: float, seed: int) -> Problem:
    rng, groups, candidates = np.random.default_rng(seed), 8, 4
    loss = rng.integers(1, 1000, (groups, candidates)).cumsum(1)[:, ::-1].ravel() * size
    columns = {"loss": loss, "bytes": np.sort(rng.integers(10, 1000, (groups, candidates)), 1).ravel(),
               "ms": rng.random(groups * candidates) * 10}  # fmt: skip
    budgets = tuple(Budget(name, float(columns[name].mean() * groups)) for name in ("bytes", "ms"))
    names = tuple(f"s{number}" for number in range(candidates))
    return Problem(tuple(f"g{number}" for number in range(groups)), (names,) * groups, columns, {"loss": 1.0}, budgets)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [5e-324, 1e-320, 1e-310, 1e-300])
def test_the_choice_is_that_of_larger_units(size: float, seed: int) -> None:
    found, expected = solve(problem(size, seed)), solve(problem(1.0, seed))
    assert found.choice is not None and expected.choice is not None
    assert found.choice.objective == pytest.approx(expected.choice.objective * size, rel=1e-3)


def test_a_weight_whose_products_are_rounded_is_refused() -> None:
    """A least objective that is found among rounded products would be called optimal."""
    with pytest.raises(ProblemError, match="weight 1e-300 of 'loss' is too small.*use a larger weight"):
        replace(problem(1e-20, 0), objective={"loss": 1e-300})
    assert replace(problem(1e-20, 0), objective={"loss": 1e-250, "ms": 1.0})
    assert replace(problem(1e-320, 0), objective={"loss": 2.0}).costs.max() > 0  # the products are exact


def test_an_interval_next_to_the_tolerance_needs_the_most_pairs() -> None:
    assert _needed(10, 0.5, (0.0, 1.0), 0.5 + 1e-16) == 10_000_000
    assert _needed(10, 0.0, (0.0, 1.0), 5e-324) == 10_000_000
