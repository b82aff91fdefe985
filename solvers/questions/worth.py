"""What one more unit of a budget buys: from the true frontier, and what the relaxation believes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from bitplan.solvers.certify import exact_total
from bitplan.solvers.problem import Budget, Number, Problem, rebudget
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solve


@dataclass(frozen=True)
class Worth:
    """One budget beside an answer. left: what the choice does not use; price: of one unit, in the relaxation; step: how
    much was added to the limit; saved: by how much the objective then falls, exactly solved; None: unknown."""

    column: str
    limit: Number
    left: Fraction
    price: float
    step: Number
    saved: float | None


def worth(
    problem: Problem, solution: Solution, steps: Mapping[str, Number], *, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> Iterator[Worth]:  # fmt: skip
    """Every budget of the problem that `steps` (column -> how much more) names; the others are held.

    A budget binds where `saved` > 0. solution: of this problem; time_limit: seconds for each. Raises NoSolutionError.
    """
    prices = solution.prices or (0.0,) * len(problem.budgets)
    for number, (budget, price) in enumerate(zip(problem.budgets, prices, strict=True)):
        if budget.column not in steps:
            continue
        step = steps[budget.column]
        limit = Fraction(budget.limit) + Fraction(step)
        wider = (*problem.budgets[:number], Budget(budget.column, limit), *problem.budgets[number + 1 :])
        more = solve(rebudget(problem, wider), time_limit=time_limit, gap=gap, backend=backend)
        saved = None if more.choice is None else max(0.0, solution.objective - more.objective)
        left = Fraction(budget.limit) - exact_total(problem, budget.column, solution.picks)
        yield Worth(budget.column, budget.limit, left, price, step, saved)
