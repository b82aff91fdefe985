"""Every way to a solution of the table against brute force, and what the published split is a split of."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem, ProblemError, Tie, rebudget
from bitplan.solvers.solution import Status, uniform
from bitplan.solvers.strategies import STRATEGIES, split, strategy_named
from bitplan.solvers.strategies.base import Strategy
from bitplan.solvers.strategies.split import best, halves, shares, sweep
from tests.solvers import oracle

PROVING = ("exact", "ilp")
CALM = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
HAIR = Fraction(1, 10**9)
each = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


def splittable(problem: Problem) -> bool:
    try:
        split.split_of(problem)
    except ProblemError:
        return False
    return True


@each
@given(problem=oracle.problems((1e-30, 1.0, 1e30)))
@CALM
def test_brute_force_lies_between_bound_and_objective(strategy: Strategy, problem: Problem) -> None:
    assume(strategy.name != "split" or splittable(problem))
    solution, least = strategy.run(problem, Effort()), oracle.best(problem)
    if least is None:
        expected = [Status.INFEASIBLE] if strategy.name in PROVING else [Status.INFEASIBLE, Status.INTERRUPTED]
        assert solution.status in expected and solution.choice is None
        return
    assert solution.status is not Status.INFEASIBLE
    assert Fraction(solution.bound) <= least * (1 + HAIR)
    if strategy.name in PROVING:
        assert solution.status is Status.OPTIMAL
    if solution.choice is not None:
        assert not violations(problem, solution.picks)
        exact = oracle.objective(problem, solution.picks)
        assert abs(Fraction(solution.objective) - exact) <= HAIR * exact and exact >= least
        assert solution.status is not Status.OPTIMAL or exact <= least * (1 + HAIR)


@each
def test_a_choice_is_found_where_there_is_room(strategy: Strategy) -> None:
    """A way that never finds anything would keep every promise above."""
    problem = two_kinds()
    solution, exact = strategy.run(problem, Effort()), strategy_named("exact").run(problem, Effort())
    smallest = uniform(problem, "w2")
    assert exact.objective * (1 - 1e-9) <= solution.objective < smallest.objective / 4
    assert solution.bound <= exact.objective * (1 + 1e-9) and solution.totals["bits"] <= problem.budgets[0].limit


@each
def test_one_unit_too_few_is_infeasible_and_no_unit_too_many_is_not(strategy: Strategy) -> None:
    problem = two_kinds()
    least = int(problem.column("bits")[problem.grid].min(axis=1).sum())
    solutions = [strategy.run(rebudget(problem, (Budget("bits", limit),)), Effort()) for limit in (least - 1, least)]
    assert solutions[0].status is Status.INFEASIBLE
    assert solutions[1].totals["bits"] == least


def test_the_first_of_the_table_is_the_default_and_names_are_refused_by_listing_them() -> None:
    assert [strategy.name for strategy in STRATEGIES] == ["exact", "ilp", "lagrangian", "greedy", "split"]
    assert all(strategy_named(strategy.name) is strategy for strategy in STRATEGIES)
    with pytest.raises(ProblemError, match="no solver 'gurobi'; choose from exact, ilp, lagrangian, greedy, split"):
        strategy_named("gurobi")


@pytest.mark.parametrize(("time_limit", "gap"), [(0, 0), (float("nan"), 0), (1, -0.1), (1, 1), (1, float("nan"))])
def test_senseless_efforts(time_limit: float, gap: float) -> None:
    with pytest.raises(ProblemError, match="time limit is .* gap .*; expected seconds > 0 and a share"):
        Effort(time_limit, gap)


def two_kinds(groups: int = 8) -> Problem:
    """Even groups lose four times as much of the first column as of the second, odd ones the other way round."""
    random = np.random.default_rng(3)
    bits, kind = np.array([2, 4, 8]), np.arange(groups) % 2
    size = random.integers(1, 20, groups)
    loss = random.lognormal(0, 0.2, (2, groups, 3)) * 4.0**-bits
    loss *= 4.0 ** np.stack([1 - kind, kind])[:, :, None]
    return Problem(
        tuple(f"g{i}" for i in range(groups)), (("w2", "w4", "w8"),) * groups,
        {"bits": (size[:, None] * bits).ravel(), "one": loss[0].ravel(), "two": 50 * loss[1].ravel()},
        {"one": 1.0, "two": 0.02}, (Budget("bits", int(4 * size.sum())),),
    )  # fmt: skip


def test_groups_are_scored_by_the_column_in_which_they_lose_more_than_others() -> None:
    problem = two_kinds()
    found = split.split_of(problem)
    assert found.first == {"g1", "g3", "g5", "g7"} and found.column == "bits"
    assert found.objectives == ({"two": 0.02}, {"one": 1.0})
    renamed = split.split_of(replace(problem, objective={"two": 0.02, "one": 1.0}))
    assert renamed.first == set(problem.groups) - found.first
    assert renamed.objectives == found.objectives[::-1]
    scaled = replace(problem, columns={**problem.columns, "two": problem.columns["two"] * 1e-20})
    assert split.split_of(scaled).first == found.first


def test_tied_groups_are_of_one_set_so_that_no_share_breaks_their_tie() -> None:
    labels = ("x", "x", "y")
    problem = replace(two_kinds(), ties=(Tie({"g0": labels, "g1": labels}), Tie({"g1": labels, "g2": labels})))
    assert split.split_of(problem).first == {"g3", "g5", "g7"}
    points = sweep(problem, split.split_of(problem), shares(problem, split.split_of(problem), 6))
    assert points and not any(point.broken for point in points)


def test_the_split_answers_with_the_best_of_its_sweep() -> None:
    problem = two_kinds()
    found = split.split_of(problem)
    point = best(sweep(problem, found, shares(problem, found, split.STEPS)))
    solution = split.run(problem, Effort())
    assert point and point.choice and solution.picks == point.choice.picks
    assert solution.status is Status.FEASIBLE and solution.stopped == f"the best of {split.STEPS} shares"
    for half in halves(problem, found):
        assert set(half.groups) < set(solution.chosen)


def test_a_split_out_of_time_gives_what_it_has() -> None:
    solution = split.run(two_kinds(), Effort(time_limit=1e-9))
    assert solution.status is Status.INTERRUPTED
    assert solution.stopped.startswith(f"the best of 0 of {split.STEPS} shares, when the time limit was reached")


def test_a_split_that_breaks_another_budget_is_no_answer() -> None:
    problem = two_kinds()
    exact, alone = strategy_named("exact").run(problem, Effort()), split.run(problem, Effort())
    between = (exact.totals["one"] + alone.totals["one"]) / 2
    capped = replace(problem, budgets=(*problem.budgets, Budget("one", between)))
    assert strategy_named("exact").run(capped, Effort()).status is Status.OPTIMAL
    found = split.run(capped, Effort())
    assert found.status is Status.INTERRUPTED and "no choice within the budgets was found" in found.stopped


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objective": {"one": 1.0}}, "two columns in the objective and has 1 \\(one\\)"),
        ({"objective": {"one": 1.0, "two": 0.0}}, "has 1 \\(one\\)"),
        ({"objective": {"one": 1.0, "two": 1.0, "bits": 1.0}}, "has 3"),
        ({"objective": {}}, "has 0"),
        ({"budgets": ()}, "shares a budget, and there is none"),
        ({"columns": {"bits": np.ones(24, int), "one": np.ones(24), "two": np.ones(24)}}, "do not split the groups"),
        ({"columns": {"bits": np.ones(24, int), "one": np.ones(24), "two": np.zeros(24)}}, "do not split the groups"),
    ],
)
def test_what_cannot_be_split_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        split.run(replace(two_kinds(), **change), Effort())  # type: ignore[arg-type]
