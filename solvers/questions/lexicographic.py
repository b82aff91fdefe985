"""Lexicographic optimisation: minimise the first column, then the second among the choices that are left, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from bitplan.solvers.certify import exact_total
from bitplan.solvers.effort import DEFAULT, Effort
from bitplan.solvers.problem import Budget, Problem, ProblemError
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solve


def lexicographic(
    problem: Problem, order: Sequence[str], effort: Effort = DEFAULT, *, slack: float = 0.0
) -> Iterator[Solution]:
    """Yield the solution of each stage; the last one is the answer. The problem's own objective is not used.

    Args:
        problem: the groups, columns and budgets.
        order: columns, the most important first.
        effort: for each stage.
        slack: the share by which later stages may increase the sum of an earlier column.

    Raises:
        ProblemError: for no columns, unknown columns or a slack out of range.
        BackendError: for a backend that cannot run.
    """
    if not order or not 0 <= slack < float("inf"):
        raise ProblemError(f"columns are {list(order)} and slack is {slack}; give at least one column and a share >= 0")
    for column in order:
        problem = replace(problem, objective={column: 1.0})
        solution = solve(problem, effort)
        yield solution
        if solution.choice is None:
            return
        limit = exact_total(problem, column, solution.picks) * (1 + Fraction(slack))
        problem = replace(problem, budgets=(*problem.budgets, Budget(column, limit)))
