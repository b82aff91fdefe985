"""Presolve: remove candidates that no optimal choice needs, before any search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Budget, Mask, Problem
from bitplan.solvers.reduction.minima import minima
from bitplan.solvers.reduction.ties import signatures

SLIVER = 1e-12  # share of a budget: rounding error of a sum of floats; certify decides within it


@dataclass(frozen=True)
class BudgetRow:
    """A budget counted from each group's least value.

    Attributes:
        extra: (C,) each candidate's value minus the least of its group.
        slack: the limit minus the sum of the least values.
    """

    extra: NDArray[np.float64]
    slack: float


def row_of(problem: Problem, budget: Budget, keep: Mask) -> BudgetRow:
    """Return the budget counted from the groups' least kept values; every group must keep a candidate."""
    values = problem.column(budget.column)
    picks = minima(problem, values, keep)[1]
    least = values[picks]
    extra = (values - np.repeat(least, np.diff(problem.offsets))).astype(np.float64)
    if values.dtype.kind == "i":
        return BudgetRow(extra, float(Fraction(math.floor(budget.limit)) - sum(least.tolist())))
    total, limit = math.fsum(least), float(budget.limit)
    return BudgetRow(extra, limit - total + SLIVER * max(limit, total))


def affordable(problem: Problem, keep: Mask) -> Mask:
    """Return the kept candidates that fit every budget when all other groups take their least value."""
    for budget in problem.budgets:
        if (minima(problem, problem.column(budget.column), keep)[1] < 0).any():
            break
        row = row_of(problem, budget, keep)
        keep = keep & (row.extra <= row.slack * (1 + SLIVER))
    return keep


def undominated(problem: Problem, keep: Mask) -> Mask:
    """Return the kept candidates that no other candidate of their group dominates; of equals, the first is kept.

    A candidate dominates another if it has the same label in every tie and is nowhere larger, in the objective and in
    every budget's column.
    """
    grid, names = problem.grid, list(dict.fromkeys(budget.column for budget in problem.budgets))
    real = (grid >= 0) & keep[grid]
    same = signatures(problem)[grid]
    dominates = real[:, :, None] & real[:, None, :] & (same[:, :, None] == same[:, None, :])
    equal = np.ones_like(dominates)
    for values in (problem.costs, *(problem.column(name) for name in names)):
        table = values[grid]
        dominates &= table[:, :, None] <= table[:, None, :]
        equal &= table[:, :, None] == table[:, None, :]
    later = np.tri(grid.shape[1], k=-1, dtype=bool).T  # [i, j]: i comes before j
    dominated = (dominates & (~equal | later)).any(axis=1)
    result = keep.copy()
    result[grid[dominated & real]] = False
    return result
