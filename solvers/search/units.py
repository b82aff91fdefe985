"""Units: columns of very small numbers are multiplied by a power of two, which is exact, before a search.

The searches divide costs by weights and compare with shares of both, which needs numbers far from the least float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from bitplan.solvers.problem import Budget, Problem
from bitplan.solvers.solution import Solution, choice_of

SMALL = 2.0**-500  # a column whose largest value is below this is multiplied
_COST = "objective"


@dataclass(frozen=True)
class Units:
    """What a problem was multiplied by.

    Attributes:
        cost: the power of two of the objective.
        weights: the power of two of each budget.
    """

    cost: int
    weights: tuple[int, ...]


def enlarged(problem: Problem) -> tuple[Problem, Units | None]:
    """Return the problem in units in which no objective and no budget is very small; itself and None where none is."""
    budgets = [problem.column(budget.column) for budget in problem.budgets]
    units = Units(_power(problem.costs), tuple(_power(values) for values in budgets))
    if not units.cost and not any(units.weights):
        return problem, None
    columns = {_COST: np.ldexp(problem.costs, units.cost)}
    limits = []
    for number, (budget, values, power) in enumerate(zip(problem.budgets, budgets, units.weights, strict=True)):
        columns[str(number)] = np.ldexp(values, power) if power else values
        limits.append(Budget(str(number), Fraction(budget.limit) * 2**power if power else budget.limit))
    return replace(problem, columns=columns, objective={_COST: 1.0}, budgets=tuple(limits)), units


def restored(problem: Problem, solution: Solution, units: Units | None) -> Solution:
    """Return the solution of an enlarged problem as one of the problem itself."""
    if units is None:
        return solution
    choice = None if solution.choice is None else choice_of(problem, solution.picks)
    bound = _times(solution.bound, -units.cost)
    if choice is not None:
        bound = min(bound, choice.objective)
    prices = zip(solution.prices, units.weights, strict=False)
    return replace(
        solution, choice=choice, bound=bound, prices=tuple(_times(price, power - units.cost) for price, power in prices)
    )


def _power(values: np.ndarray) -> int:
    """Return the power of two that brings the largest value to about 1, or 0 if it is not very small."""
    largest = float(values.max())
    return -math.frexp(largest)[1] if 0 < largest < SMALL else 0


def _times(value: float, power: int) -> float:
    try:
        return math.ldexp(value, power)
    except OverflowError:
        return math.copysign(np.finfo(np.float64).max, value)
