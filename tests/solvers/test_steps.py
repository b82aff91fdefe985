"""Each step between problem and solution, against brute force."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.solvers.certify import violations
from bitplan.solvers.problem import Problem, ProblemError, Tie, pin
from bitplan.solvers.programs import program
from bitplan.solvers.reduction.minima import cheapest
from bitplan.solvers.reduction.presolve import affordable, undominated
from bitplan.solvers.reduction.ties import MOST_LABELLINGS, bundles, labellings
from bitplan.solvers.solution import choice_of, uniform
from bitplan.solvers.strategies.greedy import greedy
from tests.solvers import oracle

CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@given(problem=oracle.problems((1e-30, 1.0, 1e30)))
@CALM
def test_presolve_keeps_an_optimum(problem: Problem) -> None:
    keep = affordable(problem, undominated(problem, problem.allowed))
    assert not (keep & ~problem.allowed).any()
    kept, best = oracle.best(replace(problem, allowed=keep)), oracle.best(problem)
    assert (kept is None) == (best is None)
    assert kept is None or best is None or best <= kept <= best * (1 + Fraction(1, 10**12))


def test_presolve_drops_what_is_worse_and_keeps_one_of_equals() -> None:
    problem = Problem(("g",), (("a", "b", "c", "d"),), {"n": [1, 1, 2, 0], "loss": [1, 1, 1, 9]}, {"loss": 1.0})
    assert undominated(problem, problem.allowed).tolist() == [True, False, False, False]
    tied = replace(problem, ties=(Tie({"g": ("x", "x", "y", "x")}),))
    assert undominated(tied, tied.allowed).tolist() == [True, False, True, False]


@given(problem=oracle.problems(), column=st.sampled_from(["bytes", "quality"]))
@CALM
def test_cheapest_is_the_minimum_under_ties(problem: Problem, column: str) -> None:
    picks = cheapest(problem, problem.columns[column], problem.allowed)
    sums = {choice: oracle.total(problem, column, choice) for choice in oracle.choices(problem)}
    assert (picks is None) == (not sums)
    if picks is not None:
        least = min(sums.values())
        assert sums[picks] <= least * (1 + Fraction(1, 10**12)) if column == "quality" else sums[picks] == least


def test_bundles_follow_overlapping_ties() -> None:
    names, same = tuple("abcdef"), ("x", "y")
    ties = (Tie({"e": same, "c": same}), Tie({"a": same, "e": same}), Tie({"b": same}))
    problem = Problem(names, (("p", "q"),) * 6, {"n": [0] * 12}, {}, ties=ties)  # type: ignore[dict-item]
    assert [(b.places, b.ties) for b in bundles(problem)] == [
        ((0, 2, 4), (0, 1)), ((1,), (2,)), ((3,), ()), ((5,), ())
    ]  # fmt: skip
    assert len(list(labellings(problem, bundles(problem)[0], problem.allowed))) == 2


def test_too_many_overlapping_ties_are_refused() -> None:
    count = 16
    names = tuple(f"g{i}" for i in range(count))
    ties = tuple(
        Tie({a: ("x", "x", "y", "y"), b: ("x", "y", "x", "y")}) for a, b in zip(names, names[1:], strict=False)
    )
    problem = Problem(names, (tuple("pqrs"),) * count, {"n": [0] * 4 * count}, {}, ties=ties)  # type: ignore[dict-item]
    with pytest.raises(ProblemError, match=f"over {MOST_LABELLINGS} labellings"):
        cheapest(problem, problem.columns["n"], problem.allowed)


@given(problem=oracle.problems())
@CALM
def test_cover_cuts_off_only_what_breaks_the_budget(problem: Problem) -> None:
    possible = list(oracle.choices(problem))
    for number, budget in enumerate(problem.budgets):
        broken = [p for p in possible if any(v.place == number for v in violations(problem, p) if v.kind == "budget")]
        for picks in broken[:3]:
            cut = set(program.cover(problem, budget, picks, problem.allowed))
            groups = len({int(np.searchsorted(problem.offsets, c, side="right")) for c in cut})
            assert len(cut.intersection(picks)) == groups
            assert _admits(replace(problem, budgets=()), picks, ()) and not _admits(problem, picks, (cut,))
            for other in possible:
                if len(cut.intersection(other)) == groups:
                    assert oracle.total(problem, budget.column, other) > Fraction(budget.limit)


@given(problem=oracle.problems((1e-30, 1.0, 1e30)))
@CALM
def test_greedy_is_certified_and_no_better_than_the_optimum(problem: Problem) -> None:
    choice, best = greedy(problem), oracle.best(problem)
    if choice is not None:
        assert best is not None and not violations(problem, choice.picks)
        assert Fraction(choice.objective) >= best * (1 - Fraction(1, 10**12))


def _admits(problem: Problem, picks: tuple[int, ...], cuts: Sequence[set[int]]) -> bool:
    """Whether the program without budgets has the choice as a point."""
    built = program.build(replace(problem, budgets=()), problem.allowed, 1.0, [sorted(cut) for cut in cuts])
    for variable in built.lp.variables():
        variable.varValue = 0.0
    for pick in picks:
        built.chosen[pick].varValue = 1.0
    free = {variable.name for variable in built.lp.variables() if variable.name.startswith("t")}
    rows = [row for row in built.lp.constraints.values() if not free & {variable.name for variable in row}]
    return all(row.valid() for row in rows)


def test_greedy_comes_close_on_a_smooth_problem() -> None:
    bits = np.tile([8.0, 6.0, 4.0, 3.0], 50)
    random = np.random.default_rng(0)
    size, weight = np.repeat(random.uniform(1, 2, 50), 4), np.repeat(random.lognormal(0, 1, 50), 4)
    names = tuple(f"g{i}" for i in range(50))
    problem = Problem(names, (tuple("8643"),) * 50, {"n": size * bits, "loss": weight * 4.0**-bits}, {"loss": 1.0})
    flat = uniform(problem, "4")
    problem = oracle.replace(problem, budgets=(oracle.Budget("n", flat.totals["n"] * 1.0001),))
    choice = greedy(problem)
    assert choice is not None and choice.objective < 0.8 * flat.objective


def test_uniform_takes_the_fallback_or_refuses() -> None:
    problem = Problem(("a", "b"), (("w8", "keep"), ("w4", "keep")), {"n": [1, 2, 3, 4]}, {"n": 1.0})  # type: ignore[dict-item]
    assert uniform(problem, "w8", ("keep",)).names == {"a": "w8", "b": "keep"}
    with pytest.raises(ProblemError, match="group 'b' may not take 'w8'; there are w4, keep"):
        uniform(problem, "w8")
    with pytest.raises(ProblemError, match="'a' may not take 'w8'; there are keep"):
        uniform(pin(problem, {"a": "keep"}), "w8")


def test_choice_sums_integers_exactly() -> None:
    problem = Problem(("a", "b"), (("x",), ("x",)), {"n": np.array([2**53 - 1, 1]), "f": [0.5, 0.25]}, {"f": 2.0})  # type: ignore[dict-item]
    choice = choice_of(problem, (0, 1))
    assert choice.totals == {"n": 2**53, "f": 0.75} and choice.objective == 1.5


def test_imports_no_torch_and_the_table_no_pulp() -> None:
    code = (
        "import sys, bitplan; known = set(sys.modules)\n"  # what registers with other libraries, on their import
        "import bitplan.solvers.programs.backends; assert not {'pulp', 'numpy', 'torch'} & set(sys.modules)\n"
        "from bitplan.solvers import solve, solution; from bitplan.solvers.questions import infeasibility\n"
        "from bitplan.solvers.programs.backends import cbc, highs\n"
        "new = {name for name in set(sys.modules) - known if name.startswith(('torch', 'bitplan'))}\n"
        "assert all(name.startswith('bitplan.solvers') for name in new), new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
