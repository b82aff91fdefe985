"""The exact path of `bitplan.solvers.solve`: a proof, or what a limit left of one."""

from __future__ import annotations

from bitplan.solvers.problem import Problem
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies.base import Effort


def run(problem: Problem, effort: Effort) -> Solution:
    """Raises ProblemError and BackendError."""
    return solve(problem, time_limit=effort.time_limit, gap=effort.gap, backend=effort.backend)
