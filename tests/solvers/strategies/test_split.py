"""The two-group split against every choice of each set, and against the joint program."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem, ProblemError, Tie
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies.split import Split, best, halves, limit_of, share_of, shares, sweep
from tests.solvers.oracle import best as least
from tests.solvers.oracle import choices, objective, problems, total, within


def parted(problem: Problem) -> Split:
    half = len(problem.groups) // 2
    return Split(frozenset(problem.groups[:half]), ({"quality": 1.0}, {"alignment": 1.0}), "bytes")


def small(limit: float = 30) -> Problem:
    """Two groups a set, sizes 1 and 2 units in the first and 3 and 4 in the second, at 2, 4 and 8 bits."""
    sizes, bits = np.array([1, 2, 3, 4]), np.array([2, 4, 8])
    loss = (10.0 / np.arange(1, 5)[:, None] / bits).ravel()
    return Problem(
        ("a", "b", "c", "d"), (("w2", "w4", "w8"),) * 4,
        {"bits": (sizes[:, None] * bits).ravel(), "loss": loss, "other": loss.reshape(4, 3)[::-1].ravel()},
        {"loss": 1.0}, (Budget("bits", limit),),
    )  # fmt: skip


SMALL = Split(frozenset("ab"), ({"other": 1.0}, {"loss": 1.0}), "bits")


@given(problems())
@settings(max_examples=60, deadline=None)
def test_every_point_is_the_best_of_each_set_and_never_better_than_the_joint_program(problem: Problem) -> None:
    assume(any(budget.column == "bytes" for budget in problem.budgets) and least(problem) is not None)
    split = parted(problem)
    joint = solve(problem)
    for point in sweep(problem, split, shares(problem, split, 4)):
        limits = (point.share, limit_of(problem, "bytes") - point.share)
        for half, limit, answer in zip(halves(problem, split), limits, point.solutions, strict=True):
            bounded = replace(half, budgets=(Budget("bytes", limit),))
            wanted = least(bounded)
            assert (wanted is None) == (answer.choice is None)
            if wanted is not None:
                assert answer.objective == pytest.approx(float(wanted), rel=1e-8, abs=1e-12)
        if point.choice is None:
            continue
        assert point.broken == violations(problem, point.choice.picks)
        assert total(problem, "bytes", point.choice.picks) <= limit_of(problem, "bytes")
        if not point.broken:
            assert within(problem, point.choice.picks)
            assert point.choice.objective == pytest.approx(float(objective(problem, point.choice.picks)))
            assert joint.objective <= point.choice.objective * (1 + 1e-8)


@given(problems())
@settings(max_examples=60, deadline=None)
def test_a_sweep_goes_from_one_end_to_the_other(problem: Problem) -> None:
    assume(any(budget.column == "bytes" for budget in problem.budgets) and least(problem) is not None)
    split = parted(problem)
    first, second = ([total(half, "bytes", picks) for picks in choices(half)] for half in halves(problem, split))
    found = shares(problem, split, 5)
    assert found[0] == min(first)
    assert found[-1] == min(max(first), limit_of(problem, "bytes") - min(second))
    assert len(set(np.diff(found))) == 1


def test_the_factor_is_the_ratio_of_the_sets_mean_bits() -> None:
    problem = small(limit=30)
    for factor in (0.46, 1.0, 1.36):
        first = share_of(problem, SMALL, factor)
        ratio, mean = 3 / 7, 30 / 10  # as published: b (1 + r) / (k r + 1), and k times that
        other = mean * (1 + ratio) / (factor * ratio + 1)
        assert float(first) == pytest.approx(factor * other * 3)
        assert float(30 - first) == pytest.approx(other * 7)
    assert share_of(problem, SMALL, 0) == 0


def test_sets_are_scored_by_their_own_losses_and_the_whole_by_its_objective() -> None:
    problem = small()
    (point,) = sweep(problem, SMALL, [12])
    assert point.choice is not None
    first, second = point.solutions
    assert first.objective == first.totals["other"] and second.objective == second.totals["loss"]
    assert point.choice.totals["other"] == pytest.approx(first.totals["other"] + second.totals["other"])
    assert point.choice.objective == point.choice.totals["loss"]
    assert point.solutions[0].totals["bits"] <= 12 and point.solutions[1].totals["bits"] <= 18


def test_the_best_point_breaks_nothing_and_is_least_in_what_is_asked() -> None:
    problem = small()
    points = sweep(problem, SMALL, [0, 8, 12, 16])
    assert points[0].choice is None and points[0].share == Fraction(0)
    whole = [point for point in points if point.choice]
    assert len(whole) > 1
    for column in ("loss", "other"):
        assert best(points, column).choice.totals[column] == min(p.choice.totals[column] for p in whole)
    assert best(points).choice.objective == best(points, "loss").choice.objective
    assert best(points[:1]) is None
    capped = replace(problem, budgets=(*problem.budgets, Budget("other", 0.1)))
    refused = sweep(capped, SMALL, [8, 12, 16])
    assert all(point.broken[0].kind == "budget" for point in refused) and best(refused) is None


def test_a_tie_across_the_sets_is_reported_as_broken() -> None:
    labels = ("x", "y", "z")
    problem = replace(small(50), ties=(Tie({"a": labels, "b": labels}), Tie({"a": labels, "d": labels})))
    (point,) = sweep(problem, SMALL, [24])  # w8 for all of the first set leaves no w8 for d
    assert point.choice and point.choice.names["a"] == point.choice.names["b"] == "w8" != point.choice.names["d"]
    assert [found.kind for found in point.broken] == ["tie"]
    assert best([point]) is None


def test_what_may_not_be_taken_is_not() -> None:
    allowed = np.ones(12, bool)
    allowed[[6, 9]] = False  # no 2 bits in the second set
    problem = replace(small(36), allowed=allowed)
    found = shares(problem, SMALL, 3)
    assert found == (6, 7, 8)
    assert all(p.choice and {p.choice.names[g] for g in "cd"} == {"w4"} for p in sweep(problem, SMALL, found))
    assert shares(replace(problem, budgets=(Budget("bits", 33),)), SMALL, 3) == ()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: shares(p, replace(SMALL, first=frozenset("ax")), 3), "'x', which is not a group"),
        (lambda p: shares(p, replace(SMALL, first=frozenset()), 3), "0 groups in its first set"),
        (lambda p: shares(p, replace(SMALL, first=frozenset("abcd")), 3), "4 groups in its first set"),
        (lambda p: shares(p, SMALL, 1), "at least 2"),
        (lambda p: shares(replace(p, budgets=()), SMALL, 3), "no budget on 'bits'"),
        (lambda p: share_of(p, SMALL, float("nan")), "factor is nan"),
        (lambda p: sweep(p, SMALL, [8, 12], Effort(time_limit=1e-9)), "0 of 2 shares"),
        (lambda p: shares(replace(p, allowed=np.zeros(12, bool)), SMALL, 3), "allow more"),
    ],
)
def test_bad_input_is_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProblemError, match=words):
        call(small())
