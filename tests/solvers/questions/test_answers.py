"""Frontier, forced alternatives, worth of a budget, k best, lexicographic and uncertain answers against brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Number, Problem, ProblemError, pin, rebudget
from bitplan.solvers.questions.alternatives import alternatives
from bitplan.solvers.questions.frontier import frontier
from bitplan.solvers.questions.kbest import k_best
from bitplan.solvers.questions.lexicographic import lexicographic
from bitplan.solvers.questions.marginal import marginal_values
from bitplan.solvers.solution import NoSolutionError, Solution, Status
from bitplan.solvers.solve import solve
from tests.solvers import oracle

CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
HAIR = Fraction(1, 10**9)
SCALES = (1e-30, 1.0, 1e30)


def assert_optimal(problem: Problem, solution: Solution) -> None:
    """The solution is what brute force finds, and its bound holds."""
    best = oracle.best(problem)
    if best is None:
        assert solution.status is Status.INFEASIBLE and solution.choice is None
        return
    assert solution.status is Status.OPTIMAL and not violations(problem, solution.picks)
    assert best * (1 - HAIR) <= Fraction(solution.objective) <= best * (1 + HAIR)
    assert Fraction(solution.bound) <= best * (1 + HAIR)


@given(problem=oracle.problems(SCALES), data=st.data())
@CALM
def test_frontier_is_what_solving_each_limit_gives(problem: Problem, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(["bytes", "ms", "alignment"]))
    sums = sorted({oracle.total(problem, column, picks) for picks in oracle.choices(problem)}) or [Fraction(1)]
    some = data.draw(st.lists(st.sampled_from(sums), min_size=1, max_size=8))
    limits = [*some, some[0], sums[0] - 1, sums[0] * Fraction(1, 2)]
    others = tuple(budget for budget in problem.budgets if budget.column != column)
    points = list(frontier(problem, column, limits))
    assert [limit for limit, _ in points] == sorted(limits, reverse=True)
    for limit, solution in points:
        assert_optimal(rebudget(problem, (*others, Budget(column, limit))), solution)


@given(problem=oracle.problems(), gap=st.sampled_from([0.01, 0.2]))
@CALM
def test_frontier_with_a_gap_keeps_every_bound_true(problem: Problem, gap: float) -> None:
    sums = sorted({oracle.total(problem, "bytes", picks) for picks in oracle.choices(problem)}) or [Fraction(1)]
    others = tuple(budget for budget in problem.budgets if budget.column != "bytes")
    for limit, solution in frontier(problem, "bytes", sums[:: max(1, len(sums) // 10)], Effort(gap=gap)):
        bounded = rebudget(problem, (*others, Budget("bytes", limit)))
        best = oracle.best(bounded)
        assert (best is None) == (solution.status is Status.INFEASIBLE)
        if best is not None:
            assert not violations(bounded, solution.picks) and solution.gap <= gap
            assert Fraction(solution.bound) <= best * (1 + HAIR)


def test_frontier_of_a_middling_problem_is_what_solve_says() -> None:
    """Units by the dozen, so that each limit begins with what the looser one left."""
    problem = middling(40, 6)
    limits = [int(limit) for limit in np.linspace(4e6, 24e6, 15)]
    for limit, solution in frontier(problem, "b0", limits):
        alone = solve(rebudget(problem, (problem.budgets[1], Budget("b0", limit))))
        assert solution.status is alone.status
        if alone.choice is not None:
            assert solution.objective == pytest.approx(alone.objective, rel=1e-9)
            assert solution.bound <= alone.objective * (1 + 1e-9)


def test_frontier_refuses_no_limits() -> None:
    with pytest.raises(ProblemError, match="no limits on 'b0'"):
        list(frontier(middling(4, 3), "b0", []))
    with pytest.raises(ProblemError, match="no column"):
        list(frontier(middling(4, 3), "b9", [1]))


@given(problem=oracle.problems(SCALES), place=st.integers(0, 5))
@CALM
def test_forcing_a_candidate_costs_what_brute_force_says(problem: Problem, place: int) -> None:
    solution = solve(problem)
    if solution.choice is None:
        return
    group = problem.groups[place % len(problem.groups)]
    names = problem.candidates[problem.positions[group]]
    found = list(alternatives(problem, solution.choice, group))
    assert [a.candidate for a in found] == [n for n in names if problem.allowed[problem.index(group, n)]]
    for alternative in found:
        forced = pin(problem, {group: alternative.candidate})
        assert_optimal(forced, alternative.solution)
        best = oracle.best(forced)
        assert (alternative.cost is None) == (best is None)
        if best is not None and alternative.cost is not None:
            rise = best - Fraction(solution.objective)
            assert abs(Fraction(alternative.cost) - rise) <= HAIR * best
            names_now = alternative.solution.chosen
            assert names_now[group] == alternative.candidate and group not in alternative.moved
            kept = set(problem.groups) - set(alternative.moved) - {group}
            assert all(names_now[other] == solution.chosen[other] for other in kept)
            assert all(names_now[other] != solution.chosen[other] for other in alternative.moved)
        if alternative.candidate == solution.chosen[group]:
            assert alternative.cost == pytest.approx(0.0, abs=1e-9 * solution.objective)


def test_why_names_the_group_that_was_meant() -> None:
    problem = middling(4, 3)
    with pytest.raises(ProblemError, match="did you mean 'g1'"):
        list(alternatives(problem, solve(problem).choice, "g1x"))  # type: ignore[arg-type]


@given(problem=oracle.problems(SCALES), share=st.sampled_from([0, Fraction(1, 100), Fraction(1, 3), 2]))
@CALM
def test_worth_is_the_frontier_one_step_on(problem: Problem, share: Number) -> None:
    solution = solve(problem)
    if solution.choice is None or not problem.budgets:
        return
    steps = {budget.column: share * Fraction(budget.limit) for budget in problem.budgets[:2]}
    found = list(marginal_values(problem, solution, steps))
    assert [w.column for w in found] == list(steps)
    for number, item in enumerate(found):
        budget = problem.budgets[number]
        wider = replace(budget, limit=Fraction(budget.limit) + steps[budget.column])
        best = oracle.best(rebudget(problem, tuple(wider if b is budget else b for b in problem.budgets)))
        now = Fraction(solution.objective)
        assert best is not None and item.saved is not None and item.saved >= 0
        assert abs(Fraction(item.saved) - max(now - best, 0)) <= HAIR * now
        assert item.unused == Fraction(budget.limit) - oracle.total(problem, budget.column, solution.picks) >= 0
        assert item.price >= 0 and item.step == steps[budget.column]


def test_worth_needs_a_solution() -> None:
    problem = rebudget(middling(4, 3), (Budget("b0", 0), Budget("b1", 0)))
    with pytest.raises(NoSolutionError):
        list(marginal_values(problem, solve(problem), {"b0": 1}))


@given(problem=oracle.problems(SCALES), count=st.integers(1, 8))
@CALM
def test_k_best_are_the_k_least(problem: Problem, count: int) -> None:
    within = sorted(oracle.objective(problem, p) for p in oracle.choices(problem) if oracle.within(problem, p))
    found = list(k_best(problem, count))
    answers = [solution for solution in found if solution.choice is not None]
    assert len(answers) == min(count, len(within))
    assert len({solution.picks for solution in answers}) == len(answers)
    for least, solution in zip(within, answers, strict=False):
        assert not violations(problem, solution.picks)
        assert abs(Fraction(solution.objective) - least) <= HAIR * least
    assert len(found) == len(answers) + (len(within) < count)
    assert len(found) == len(answers) or found[-1].status is Status.INFEASIBLE


@given(problem=oracle.problems(), distance=st.integers(2, 3))
@CALM
def test_diverse_answers_differ_and_each_is_the_best_that_does(problem: Problem, distance: int) -> None:
    distance = min(distance, len(problem.groups))
    left = {p: oracle.objective(problem, p) for p in oracle.choices(problem) if oracle.within(problem, p)}
    for solution in k_best(problem, 6, distance=distance):
        if solution.choice is None:
            assert solution.status is Status.INFEASIBLE and not left
            break
        assert abs(Fraction(solution.objective) - min(left.values())) <= HAIR * min(left.values())
        assert solution.picks in left
        left = {p: value for p, value in left.items() if differing(p, solution.picks) >= distance}


def differing(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_k_best_of_a_middling_problem_rise_and_differ() -> None:
    problem = middling(30, 5)
    found = list(k_best(problem, 5, distance=4))
    assert [s.status for s in found] == [Status.OPTIMAL] * 5
    assert all(a.objective <= b.objective * (1 + 1e-9) for a, b in itertools.pairwise(found))
    assert all(differing(a.picks, b.picks) >= 4 for a, b in itertools.combinations(found, 2))
    assert all(not violations(problem, solution.picks) for solution in found)


@pytest.mark.parametrize(("count", "distance"), [(0, 1), (1, 0), (1, 5)])
def test_senseless_counts_and_distances(count: int, distance: int) -> None:
    with pytest.raises(ProblemError, match=f"{count} choices at distance {distance}"):
        list(k_best(middling(4, 3), count, distance=distance))


@given(problem=oracle.problems(SCALES), order=st.permutations(["quality", "alignment", "bytes"]))
@CALM
def test_one_objective_after_another(problem: Problem, order: list[str]) -> None:
    left = [picks for picks in oracle.choices(problem) if oracle.within(problem, picks)]
    stages = list(lexicographic(problem, order))
    assert len(stages) == (len(order) if left else 1)
    for column, solution in zip(order, stages, strict=False):
        if not left:
            assert solution.status is Status.INFEASIBLE
            break
        least = min(oracle.total(problem, column, picks) for picks in left)
        reached = oracle.total(problem, column, solution.picks)
        assert solution.picks in left and least <= reached <= least * (1 + HAIR)
        left = [picks for picks in left if oracle.total(problem, column, picks) <= reached]


@given(problem=oracle.problems(), slack=st.sampled_from([0.01, 0.5]))
@CALM
def test_slack_loosens_each_earlier_objective_by_its_share(problem: Problem, slack: float) -> None:
    stages = list(lexicographic(problem, ["quality", "bytes"], slack=slack))
    if len(stages) < 2:
        return
    most = oracle.total(problem, "quality", stages[0].picks) * (1 + Fraction(slack))
    beside = rebudget(problem, (*problem.budgets, Budget("quality", most)))
    assert_optimal(replace(beside, objective={"bytes": 1.0}), stages[1])


def test_an_order_of_nothing_and_senseless_slacks_are_refused() -> None:
    for order, slack in (([], 0.0), (["b0"], -1.0), (["b0"], math.inf)):
        with pytest.raises(ProblemError, match="columns are"):
            list(lexicographic(middling(4, 3), order, slack=slack))


def middling(groups: int, size: int, seed: int = 0) -> Problem:
    """Losses that fall as two integer costs rise, both bounded."""
    random = np.random.default_rng(seed)
    cost = random.integers(1, 10**6, (2, groups * size))
    loss = random.lognormal(0, 1, groups * size) * (2.2 - cost.sum(axis=0) / 10**6) ** 2
    names = tuple(str(j) for j in range(size))
    return Problem(
        tuple(f"g{i}" for i in range(groups)), (names,) * groups, {"b0": cost[0], "b1": cost[1], "loss": loss},
        {"loss": 1.0}, tuple(Budget(f"b{i}", int(0.45e6 * groups)) for i in (0, 1)),
    )  # fmt: skip
