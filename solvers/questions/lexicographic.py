"""One objective after another: the best by the first column, of these the best by the second, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from bitplan.solvers.certify import exact_total
from bitplan.solvers.problem import Budget, Problem, ProblemError
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solve


def lexicographic(
    problem: Problem, order: Sequence[str], *, slack: float = 0.0, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> Iterator[Solution]:  # fmt: skip
    """The solution of each stage, the last of which is the answer; the problem's own objective is not used.

    slack: the share by which a later stage may worsen an earlier column's sum; time_limit: seconds for each stage. Ends
    early at a stage without a choice. Raises ProblemError and BackendError.
    """
    if not order or not 0 <= slack < float("inf"):
        raise ProblemError(f"columns are {list(order)} and slack is {slack}; give at least one column and a share >= 0")
    for column in order:
        problem = replace(problem, objective={column: 1.0})
        solution = solve(problem, time_limit=time_limit, gap=gap, backend=backend)
        yield solution
        if solution.choice is None:
            return
        reached = exact_total(problem, column, solution.picks) * (1 + Fraction(slack))
        problem = replace(problem, budgets=(*problem.budgets, Budget(column, reached)))
