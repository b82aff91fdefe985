"""Integers near 2^53, where 64-bit floats stop to hold all of them: exact up to there, refused beyond."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bitplan.solvers.certify import lower_bound
from bitplan.solvers.effort import DEFAULT
from bitplan.solvers.problem import MOST, Budget, Problem, ProblemError
from bitplan.solvers.questions.frontier import frontier
from bitplan.solvers.solution import Status
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies import STRATEGIES
from bitplan.solvers.strategies.base import Strategy

GROUPS, WIDTH = 4, 3


def _problem(sizes: np.ndarray, losses: np.ndarray, limit: int, extra: tuple[Budget, ...] = ()) -> Problem:
    return Problem(
        tuple(f"g{i}" for i in range(GROUPS)), (tuple("abc"),) * GROUPS,
        {"bytes": sizes.ravel(), "loss": losses.ravel(), "ms": losses.ravel()[::-1].copy()}, {"loss": 1.0},
        (Budget("bytes", limit), *extra),
    )  # fmt: skip


def _sums(sizes: np.ndarray) -> list[tuple[int, tuple[int, ...]]]:
    """Every choice with its sum in Python's integers, in rising order."""
    table = sizes.tolist()
    places = itertools.product(range(WIDTH), repeat=GROUPS)
    return sorted((sum(table[i][p] for i, p in enumerate(one)), one) for one in places)


def _best(sizes: np.ndarray, losses: np.ndarray, limit: int) -> float | None:
    table = losses.tolist()
    fitting = (sum(table[i][p] for i, p in enumerate(one)) for total, one in _sums(sizes) if total <= limit)
    return min(fitting, default=None)


@pytest.mark.parametrize("bits", [52, 53, 54, 56, 60, 63])
def test_every_answer_is_exact_or_refused(bits: int) -> None:
    random = np.random.default_rng(bits)
    for _ in range(12):
        top = 2**bits // GROUPS - 1
        sizes = top - random.integers(0, 5, (GROUPS, WIDTH))
        losses = random.integers(1, 100, (GROUPS, WIDTH)).astype(float)
        sums = _sums(sizes)
        limit = sums[int(random.integers(len(sums)))][0] - int(random.integers(0, 2))
        if bits > 53:
            with pytest.raises(ProblemError, match=r"'bytes' .* above 2\^53 = 9007199254740992; use a larger unit"):
                _problem(sizes, losses, limit)
            continue
        solution, best = solve(_problem(sizes, losses, limit)), _best(sizes, losses, limit)
        if best is None:
            assert solution.status is Status.INFEASIBLE
        else:
            assert solution.status is Status.OPTIMAL
            assert solution.objective == best and solution.totals["bytes"] <= limit


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.name)
def test_strategies_tell_two_integers_apart_below_the_limit(strategy: Strategy) -> None:
    """Two budgets, of which the first is met exactly by one choice only, one unit apart from others."""
    if strategy.name == "split":
        pytest.skip("it needs two columns in the objective")
    top = MOST // GROUPS
    sizes = np.array([[top - 4, top - 2, top]] * GROUPS)
    sizes[0] += [0, -1, 0]
    losses = np.array([[9.0, 2.0, 1.0]] * GROUPS)
    for limit in (4 * top - 9, 4 * top - 8, 4 * top - 7, 4 * top):
        solution = strategy.run(_problem(sizes, losses, limit), DEFAULT)
        best = _best(sizes, losses, limit)
        assert best is not None and solution.bound <= best
        if solution.choice is not None:
            assert solution.totals["bytes"] <= limit and solution.objective >= best
        assert solution.status is not Status.INFEASIBLE
        if solution.status is Status.OPTIMAL:
            assert solution.objective == best


def test_the_frontier_tells_neighbouring_integers_apart() -> None:
    top = MOST // GROUPS - 1
    sizes = np.array([[top - 3, top - 1, top]] * GROUPS)
    losses = np.array([[9.0, 2.0, 1.0]] * GROUPS)
    limits = [4 * top - k for k in (12, 11, 5, 4, 3, 1, 0)]
    for limit, solution in frontier(_problem(sizes, losses, 4 * top), "bytes", limits):
        assert solution.objective == _best(sizes, losses, int(limit))


def test_the_sum_of_the_largest_values_counts() -> None:
    half = MOST // 2
    problem = Problem(("a", "b"), (("x", "y"), ("x",)), {"n": np.array([half, 1, half])}, {"n": 1.0})
    assert solve(problem).totals["n"] == half + 1
    with pytest.raises(ProblemError, match=r"column 'n' sums to as much as 9007199254740993, above 2\^53"):
        Problem(("a", "b"), (("x", "y"), ("x",)), {"n": np.array([half + 1, 1, half])}, {"n": 1.0})
    with pytest.raises(ProblemError, match=r"column 'n' holds 9223372036854775808, beyond 2\^53"):
        Problem(("a",), (("x", "y"),), {"n": [2**63, 1]}, {"n": 1.0})  # type: ignore[dict-item]
    with pytest.raises(ProblemError, match=r"column 'n' holds 36893488147419103232, beyond 2\^53"):
        Problem(("a",), (("x", "y"),), {"n": [2**65, 1]}, {"n": 1.0})  # type: ignore[dict-item]


def test_limits_beyond_all_floats_are_refused_and_large_ones_bind_nothing() -> None:
    values = {"n": np.array([3, 1])}
    with pytest.raises(ProblemError, match="beyond all 64-bit floats; give a finite number"):
        Budget("n", 10**400)
    assert solve(Problem(("a",), (("x", "y"),), values, {"n": 1.0}, (Budget("n", 10**300),))).totals["n"] == 1


TINY = (5e-324, 1e-320, 1e-310)


@pytest.mark.parametrize("scale", TINY)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.name)
def test_losses_below_the_least_normal_float_are_solved(strategy: Strategy, scale: float) -> None:
    random = np.random.default_rng(3)
    for _ in range(8):
        sizes = random.integers(1, 50, (GROUPS, WIDTH))
        losses = random.integers(1, 100, (GROUPS, WIDTH)) * scale
        limit = _sums(sizes)[int(random.integers(30, 80))][0]
        budgets = (Budget("ms", float(losses.sum())),) * int(random.integers(0, 2))
        problem = _problem(sizes, losses, limit, budgets)
        if strategy.name == "split":
            continue
        solution = strategy.run(problem, DEFAULT)
        best = _best(sizes, losses, limit)
        assert best is not None and solution.bound <= best
        if solution.status is Status.OPTIMAL:
            assert solution.objective == pytest.approx(best, rel=1e-9, abs=0)


@pytest.mark.parametrize("scale", TINY)
def test_budgets_below_the_least_normal_float_are_solved(scale: float) -> None:
    random = np.random.default_rng(5)
    for _ in range(6):
        sizes, losses = random.integers(1, 9, (GROUPS, WIDTH)), random.integers(1, 9, (GROUPS, WIDTH)).astype(float)
        limit = _sums(sizes)[int(random.integers(30, 80))][0]
        problem = _problem(sizes, losses, 10**6)
        columns = {"tiny": sizes.ravel() * scale, "loss": losses.ravel()}
        budgets = (Budget("tiny", limit * scale), Budget("loss", float(losses.sum())))
        problem = replace(problem, columns=columns, budgets=budgets)
        solution, best = solve(problem), _best(sizes, losses, limit)
        assert solution.status is Status.OPTIMAL and solution.objective == best
        ((_, along),) = frontier(problem, "tiny", [limit * scale])
        assert along.objective == best
        assert lower_bound(problem, solution.prices) <= best


def test_sums_that_overflow_are_refused() -> None:
    with pytest.raises(ProblemError, match="column 'n' overflows: it sums to as much as 2e\\+200; use a larger unit"):
        Problem(("a", "b"), (("x",), ("x",)), {"n": np.array([1e200, 1e200])}, {})
