"""Step by step, the most budget for the least loss."""

from __future__ import annotations

import time

from solvers.greedy import greedy
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solve import solution_of
from solvers.strategies.base import Effort, begin, met


def run(problem: Problem, effort: Effort) -> Solution:
    """Takes no longer than it takes: the effort is not looked at."""
    start = time.monotonic()
    core, state = begin(problem)
    if core is not None and not state.infeasible and state.choice is None:
        found = greedy(problem)
        state = met(problem, state, found.picks if found else None, "greedy")
    return solution_of(state, time.monotonic() - start, "greedy")
