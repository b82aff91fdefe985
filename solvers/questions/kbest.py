"""The k best choices, or k good ones that differ: each answer is cut off, and the problem solved again.

A cut is a budget: of all groups, at most so many may choose as an earlier answer did (no-good cuts; with a distance
over 1, diversity cuts: Danna et al. 2007, "Generating multiple solutions for mixed integer programming problems").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bitplan.solvers.problem import Budget, Problem, ProblemError
from bitplan.solvers.solution import Choice, Solution
from bitplan.solvers.solve import solve


def best(
    problem: Problem, count: int, *, distance: int = 1, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> Iterator[Solution]:  # fmt: skip
    """Up to `count` solutions of rising objective, any two of which differ in at least `distance` groups.

    Ends early, with the solution that says why, where no other choice is left. time_limit: seconds for each. Raises
    ProblemError and BackendError.
    """
    if count < 1 or not 1 <= distance <= len(problem.groups):
        raise ProblemError(
            f"{count} choices at distance {distance} were asked for; give at least 1, and 1 to {len(problem.groups)}"
        )
    for _ in range(count):
        solution = solve(problem, time_limit=time_limit, gap=gap, backend=backend)
        yield solution
        if solution.choice is None:
            return
        problem = without(problem, solution.choice, distance)


def without(problem: Problem, choice: Choice, distance: int = 1) -> Problem:
    """The problem of which every choice differs from this one in at least `distance` groups."""
    same = np.zeros(problem.size, dtype=np.int64)
    same[list(choice.picks)] = 1
    name = f"same as {sum(column.startswith('same as ') for column in problem.columns)}"
    cut = Budget(name, len(problem.groups) - distance)
    return replace(problem, columns={**problem.columns, name: same}, budgets=(*problem.budgets, cut))
