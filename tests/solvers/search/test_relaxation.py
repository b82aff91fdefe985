"""Core, prices, fixing, repair and labels against brute force; bounds re-computed in exact arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pulp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.solvers.certify import lower_bound, violations
from bitplan.solvers.effort import Deadline
from bitplan.solvers.problem import Problem, ProblemError
from bitplan.solvers.reduction.presolve import affordable
from bitplan.solvers.search.core import Core, core_of, shrink
from bitplan.solvers.search.dual import ascend
from bitplan.solvers.search.labels import OutOfRoomError, search
from bitplan.solvers.search.relaxation import fix, forced, relax
from bitplan.solvers.search.repair import repair
from tests.solvers import oracle

CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
HAIR = 1e-12


def core_with_answer(problem: Problem) -> tuple[Core, Fraction] | None:
    best = oracle.best(problem)
    core = core_of(problem, affordable(problem, problem.allowed))
    if best is None:
        return None
    assert core is not None
    return core, best


def up_to(best: Fraction) -> float:
    return float(best) * (1 + HAIR) + 1e-300


@given(problem=oracle.problems((1e-30, 1.0, 1e30)), prices=st.lists(st.floats(0, 10), min_size=3, max_size=3))
@CALM
def test_any_prices_bound_the_optimum(problem: Problem, prices: list[float]) -> None:
    found = core_with_answer(problem)
    if found is None or not problem.budgets:
        return
    core, best = found
    scaled = np.array(prices[: len(problem.budgets)]) * (float(core.cost.max()) or 1.0)
    point = relax(core, scaled)
    exact = lower_bound(problem, scaled.tolist())
    assert exact <= best
    scale = up_to(best) + float((scaled * core.slack).sum()) + core.base
    assert core.base + point.value <= float(best) + HAIR * scale


@given(problem=oracle.problems((1e-30, 1.0, 1e30)))
@CALM
def test_best_prices_reach_the_linear_relaxation(problem: Problem) -> None:
    core = core_of(problem, affordable(problem, problem.allowed))
    if core is None or not problem.budgets or oracle.best(problem) is None:
        return
    points = ascend(core)
    values = [point.value for point in points]
    assert values == sorted(values)
    linear = _linear(core)
    scale = float(core.cost.max()) * len(core.units) + abs(linear)
    assert linear - 1e-5 * scale <= values[-1] <= linear + 1e-6 * scale


def _linear(core: Core) -> float:
    """The least cost when units mix ways and cells mix entries, by PuLP on scaled numbers: what duality promises."""
    scale = float(core.cost.max()) or 1.0
    lp = pulp.LpProblem("relaxation", pulp.LpMinimize)
    x = [lp.add_variable(f"x{i}", 0) for i in range(len(core.candidate))]
    w = [lp.add_variable(f"w{i}", 0) for i in range(len(core.ways))]
    for unit in range(len(core.units)):
        lp += pulp.lpSum(w[core.units[unit] : core.end_of_unit[unit]]) == 1
    for cell in range(len(core.cells)):
        lp += pulp.lpSum(x[core.cells[cell] : core.end_of_cell[cell]]) - w[core.way_of[cell]] == 0
    for b, slack in enumerate(core.slack):
        unit = float(slack) or 1.0
        lp += pulp.lpSum(float(v) / unit * x[i] for i, v in enumerate(core.weight[:, b])) <= float(slack) / unit
    lp.setObjective(pulp.lpSum(float(c) / scale * x[i] for i, c in enumerate(core.cost)))
    lp.solve(pulp.HiGHS(msg=False))
    return float(pulp.value(lp.objective) or 0.0) * scale


@given(problem=oracle.problems((1e-30, 1.0, 1e30)))
@CALM
def test_fixing_keeps_every_optimum_and_labels_find_it(problem: Problem) -> None:
    found = core_with_answer(problem)
    if found is None:
        return
    core, best = found
    points = ascend(core)
    most = up_to(best) - core.base + HAIR * core.base
    smaller = fix(core, points, most)
    assert smaller is not None
    keep = np.zeros(problem.size, dtype=bool)
    keep[smaller.candidate] = True
    assert oracle.best(replace(problem, allowed=keep)) == best
    entries = search(
        smaller, [relax(smaller, point.prices) for point in points], most + HAIR * abs(most) + 1e-300, 10**5
    )
    assert entries is not None
    picks = smaller.picks(entries)
    if not [v for v in violations(problem, picks) if v.excess > Fraction(1, 10**9)]:
        assert oracle.objective(problem, picks) <= best * (1 + Fraction(1, 10**9))


@given(problem=oracle.problems())
@CALM
def test_labels_prove_that_nothing_is_better(problem: Problem) -> None:
    found = core_with_answer(problem)
    if found is None or not problem.budgets:
        return
    core, best = found
    assert search(core, ascend(core), float(best) * (1 - 1e-9) - core.base, 10**5) is None


@given(problem=oracle.problems())
@CALM
def test_repaired_choices_are_within_slack(problem: Problem) -> None:
    core = core_of(problem, affordable(problem, problem.allowed))
    if core is None:
        return
    for point in ascend(core):
        entries = repair(core, point)
        if entries is not None:
            broken = violations(problem, core.picks(entries))
            assert all(v.kind == "budget" and v.excess < 1e-6 for v in broken)


def test_forced_entries_cost_what_the_relaxation_says() -> None:
    problem = Problem(("a", "b"), (("x", "y"), ("x", "y")), {"n": [0, 3, 1, 5]}, {"n": 1.0})  # type: ignore[dict-item]
    core = core_of(problem, problem.allowed)
    assert core is not None and core.base == 1.0
    assert forced(core, relax(core, np.zeros(0))).tolist() == [0, 3, 0, 4]


def test_out_of_room_and_out_of_time_say_so() -> None:
    random = np.random.default_rng(0)
    columns = {"n": random.integers(1, 1000, 60), "loss": random.random(60)}
    names = tuple(f"g{i}" for i in range(20))
    problem = Problem(names, (tuple("abc"),) * 20, columns, {"loss": 1.0}, (oracle.Budget("n", 8000),))
    core = core_of(problem, problem.allowed)
    assert core is not None
    with pytest.raises(OutOfRoomError):
        search(core, ascend(core), math.inf, 2)
    with pytest.raises(OutOfRoomError):
        search(core, ascend(core), math.inf, 10**6, Deadline(0.0))


def test_shrinking_drops_ways_that_lose_a_cell_and_units_that_lose_all() -> None:
    tie = oracle.Tie({"a": ("p", "q"), "b": ("p", "q")})
    problem = Problem(("a", "b"), (("x", "y"), ("x", "y")), {"n": [1, 2, 3, 4]}, {"n": 1.0}, ties=(tie,))  # type: ignore[dict-item]
    core = core_of(problem, problem.allowed)
    assert core is not None and len(core.units) == 1 and len(core.ways) == 2 and len(core.cells) == 4
    keep = core.candidate != 0
    left = shrink(core, keep)
    assert left is not None and left.candidate.tolist() == [1, 3] and len(left.ways) == 1
    assert shrink(core, keep & (core.candidate != 3)) is None


@pytest.mark.parametrize("prices", [[-1.0], [math.nan], [math.inf], [1.0, 1.0]])
def test_prices_that_prove_nothing_are_refused(prices: list[float]) -> None:
    problem = Problem(("a",), (("x",),), {"n": [1]}, {"n": 1.0}, (oracle.Budget("n", 1),))  # type: ignore[dict-item]
    with pytest.raises(ProblemError, match="expected 1 finite numbers"):
        lower_bound(problem, prices)
