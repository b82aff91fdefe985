"""The marginal value of each budget: the saving when its limit is raised and the problem is solved again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from bitplan.solvers.certify import exact_total
from bitplan.solvers.effort import DEFAULT, Effort
from bitplan.solvers.problem import Budget, Number, Problem, rebudget
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solve


@dataclass(frozen=True)
class MarginalValue:
    """The marginal value of one budget at a solution.

    Attributes:
        column: the column that the budget limits.
        limit: the limit of the budget.
        unused: the limit minus the sum of the choice, exact.
        price: the dual price of one unit in the relaxation, in units of the objective.
        step: how much was added to the limit.
        saved: the resulting decrease of the objective, >= 0; None where it is unknown.
    """

    column: str
    limit: Number
    unused: Fraction
    price: float
    step: Number
    saved: float | None


def marginal_values(
    problem: Problem, solution: Solution, steps: Mapping[str, Number], effort: Effort = DEFAULT
) -> Iterator[MarginalValue]:
    """Raise one budget at a time by its step and solve again; a budget binds where `saved` > 0.

    Args:
        problem: the problem that was solved.
        solution: its solution.
        steps: column -> increase of the limit; other budgets are skipped.
        effort: for each solve.

    Raises:
        NoSolutionError: the solution has no choice.
    """
    prices = solution.prices or (0.0,) * len(problem.budgets)
    for number, (budget, price) in enumerate(zip(problem.budgets, prices, strict=True)):
        if budget.column not in steps:
            continue
        step = steps[budget.column]
        limit = Fraction(budget.limit) + Fraction(step)
        wider = (*problem.budgets[:number], Budget(budget.column, limit), *problem.budgets[number + 1 :])
        better = solve(rebudget(problem, wider), effort)
        saved = None if better.choice is None else max(0.0, solution.objective - better.objective)
        unused = Fraction(budget.limit) - exact_total(problem, budget.column, solution.picks)
        yield MarginalValue(budget.column, budget.limit, unused, price, step, saved)
