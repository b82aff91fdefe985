"""What an infeasible problem is told, against brute force."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings

from bitplan.solvers.problem import Budget, Problem, Tie, pin
from bitplan.solvers.questions.infeasibility import explain, message
from tests.solvers import oracle

CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
GROUPS, NAMES = ("conv_in", "mid", "out"), (("keep", "w8", "w4"),) * 3
COLUMNS = {"bytes": [160, 80, 40, 32, 16, 8, 64, 32, 16], "ms": [1.0, 2.0, 4.0] * 3, "loss": [0.0, 1.0, 2.0] * 3}


def small(*budgets: Budget) -> Problem:
    return Problem(GROUPS, NAMES, COLUMNS, {"loss": 1.0}, budgets)  # type: ignore[arg-type]


@given(problem=oracle.problems())
@CALM
def test_smallest_sums_alone_and_together_are_right(problem: Problem) -> None:
    explanation, possible = explain(problem), list(oracle.choices(problem))
    assert bool(explanation.least_sums) == bool(possible and problem.budgets)
    for budget, bound in zip(problem.budgets, explanation.least_sums, strict=False):
        least = min(oracle.total(problem, budget.column, picks) for picks in possible)
        assert bound.smallest == pytest.approx(float(least), rel=1e-12)
        assert bound.within == (bound.smallest <= budget.limit) or abs(bound.smallest - budget.limit) < 1e-12
    if explanation.together is not None and all(budget.limit > 0 for budget in problem.budgets):

        def stretch(picks: tuple[int, ...]) -> float:
            return max(float(oracle.total(problem, b.column, picks) / Fraction(b.limit) - 1) for b in problem.budgets)

        assert explanation.together.picks in possible
        assert explanation.stretch == pytest.approx(max(0.0, stretch(explanation.together.picks)), abs=1e-12)
        assert explanation.stretch <= max(0.0, min(map(stretch, possible))) + 1e-6


def test_names_the_smallest_value_and_the_groups_that_pin_it() -> None:
    problem = pin(small(Budget("bytes", 100)), {"conv_in": "keep"})
    (least,) = explain(problem).least_sums
    assert (least.smallest, least.within) == (184, False)
    assert [(p.group, p.value, p.excess) for p in least.contributions] == [
        ("conv_in", 160, 120),
        ("out", 16, 0),
        ("mid", 8, 0),
    ]
    line = message(explain(problem), {"bytes": lambda value: f"{value:.0f} B"})
    assert line == (
        "bytes can get no smaller than 184 B, above the budget of 100 B; the largest parts are "
        "conv_in (keep, 160 B, cannot take less), out (w4, 16 B), mid (w4, 8 B)"
    )


def test_a_tie_can_pin_too() -> None:
    tie = Tie({"conv_in": ("a", "a", "b"), "mid": ("a", "a", "c")})
    (least,) = explain(replace(small(Budget("bytes", 100)), ties=(tie,))).least_sums
    assert least.smallest == 80 + 16 + 16
    assert {each.group: each.excess for each in least.contributions} == {"conv_in": 40, "mid": 8, "out": 0}


def test_budgets_that_only_fail_together() -> None:
    explanation = explain(small(Budget("bytes", 64), Budget("ms", 3.0)))
    assert all(least.within for least in explanation.least_sums)
    assert explanation.together is not None and explanation.stretch > 0
    assert message(explanation).startswith("each budget can be met alone, but not together: all would have to grow by")
    assert message(explain(small(Budget("bytes", 400), Budget("ms", 12.0)))) == "all budgets can be met together"


def test_no_choice_at_all() -> None:
    problem = pin(small(Budget("bytes", 64)), {"conv_in": "keep", "mid": "w4"})
    label = ("a", "b", "c")
    explanation = explain(replace(problem, ties=(Tie({"conv_in": label, "mid": label}),)))
    assert explanation.least_sums == () and "no choice at all" in message(explanation)
