"""Pairwise terms against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.solvers.certify import violations
from bitplan.solvers.problem import Problem, ProblemError
from bitplan.solvers.questions.pairs import PairTerm, solve_pairs, with_pairs
from bitplan.solvers.solution import Status, choice_of
from tests.solvers import oracle

CALM = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@given(problem=oracle.problems(), seed=st.integers(0, 2**32), count=st.integers(1, 4))
@CALM
def test_the_best_choice_with_its_pairs(problem: Problem, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        a, b = random.choice(len(problem.groups), 2, replace=False)
        shape = len(problem.candidates[a]), len(problem.candidates[b])
        pairs.append(PairTerm(problem.groups[a], problem.groups[b], random.normal(0, 1, shape)))
    solution = solve_pairs(problem, pairs)
    sums = [
        with_pairs(problem, pairs, choice_of(problem, picks)).objective
        for picks in oracle.choices(problem)
        if oracle.within(problem, picks)
    ]
    assert (solution.status is Status.INFEASIBLE) == (not sums)
    if sums:
        assert not violations(problem, solution.picks)
        assert solution.objective == pytest.approx(min(sums), rel=1e-6, abs=1e-6)
        assert solution.bound <= solution.objective


def test_bad_pairs_are_refused() -> None:
    problem = Problem(("a", "b"), (("x", "y"), ("x",)), {"n": [1, 2, 3]}, {"n": 1.0})  # type: ignore[dict-item]
    with pytest.raises(ProblemError, match="group 'c'; there are a, b"):
        solve_pairs(problem, [PairTerm("a", "c", np.zeros((2, 1)))])
    for bad in (
        PairTerm("a", "b", np.zeros((1, 2))),
        PairTerm("a", "b", np.full((2, 1), np.nan)),
        PairTerm("a", "a", np.zeros((2, 2))),
    ):
        with pytest.raises(ProblemError, match="give finite numbers of shape"):
            solve_pairs(problem, [bad])
