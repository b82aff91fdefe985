"""The exact path of `solvers.solve`: a proof, or what a limit left of one."""

from __future__ import annotations

from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solve import solve
from solvers.strategies.base import Effort


def run(problem: Problem, effort: Effort) -> Solution:
    """Raises ProblemError and BackendError."""
    return solve(problem, time_limit=effort.time_limit, gap=effort.gap, backend=effort.backend)
