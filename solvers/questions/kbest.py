"""The k best choices, or k good choices that differ: exclude each answer by a cut, and solve again.

A cut is a budget: at most so many groups may choose as in an earlier answer (no-good cuts; with a distance over 1,
diversity cuts: Danna et al. 2007, "Generating multiple solutions for mixed integer programming problems").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from bitplan.solvers.effort import DEFAULT, Effort
from bitplan.solvers.problem import Budget, Problem, ProblemError
from bitplan.solvers.solution import Choice, Solution
from bitplan.solvers.solve import solve


def k_best(
    problem: Problem, count: int, effort: Effort = DEFAULT, *, distance: int = 1, known: Sequence[Choice] = ()
) -> Iterator[Solution]:
    """Yield up to `count` solutions of rising objective, any two of which differ in at least `distance` groups.

    known: the choices of the first ones, which an earlier search found; they count, and only the others are yielded.

    The effort is for each solution. If no further choice exists, the last solution gives the reason. Raises
    ProblemError and BackendError.
    """
    if count < 1 or not 1 <= distance <= len(problem.groups):
        raise ProblemError(
            f"cannot find {count} choices at distance {distance}; ask for at least 1 choice, at a distance of 1 to "
            f"{len(problem.groups)}"
        )
    for choice in known:
        problem = without(problem, choice, distance)
    for _ in range(len(known), count):
        solution = solve(problem, effort)
        yield solution
        if solution.choice is None:
            return
        problem = without(problem, solution.choice, distance)


def without(problem: Problem, choice: Choice, distance: int = 1) -> Problem:
    """Return the problem restricted to choices that differ from this one in at least `distance` groups."""
    same = np.zeros(problem.size, dtype=np.int64)
    same[list(choice.picks)] = 1
    name = f"same as {sum(column.startswith('same as ') for column in problem.columns)}"
    cut = Budget(name, len(problem.groups) - distance)
    return replace(problem, columns={**problem.columns, name: same}, budgets=(*problem.budgets, cut))
