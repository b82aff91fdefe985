"""Candidates that no best choice needs, found before any search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Budget, Mask, Problem
from bitplan.solvers.reduction.relax import minima
from bitplan.solvers.reduction.ties import signatures

SLIVER = 1e-12  # of a budget: what summing floats may lose; certify decides on what lies between


@dataclass(frozen=True)
class Row:
    """A budget counted from each group's least value: extra (C,) beyond it, and the slack left for all extras."""

    extra: NDArray[np.float64]
    slack: float


def row_of(problem: Problem, budget: Budget, keep: Mask) -> Row:
    """The budget as extras over the groups' least kept values; every group must keep a candidate."""
    values = problem.column(budget.column)
    picks = minima(problem, values, keep)[1]
    least = values[picks]
    extra = (values - np.repeat(least, np.diff(problem.offsets))).astype(np.float64)
    if values.dtype.kind == "i":
        return Row(extra, float(Fraction(math.floor(budget.limit)) - sum(least.tolist())))
    total, limit = math.fsum(least), float(budget.limit)
    return Row(extra, limit - total + SLIVER * max(limit, total))


def affordable(problem: Problem, keep: Mask) -> Mask:
    """The kept candidates that fit every budget beside the smallest choice of all other groups."""
    for budget in problem.budgets:
        if (minima(problem, problem.column(budget.column), keep)[1] < 0).any():
            break
        row = row_of(problem, budget, keep)
        keep = keep & (row.extra <= row.slack * (1 + SLIVER))
    return keep


def undominated(problem: Problem, keep: Mask) -> Mask:
    """The kept candidates that no other of their group beats or equals in the objective and every budget's column,
    with the same labels in every tie; the first of equals stays."""
    grid, names = problem.grid, list(dict.fromkeys(budget.column for budget in problem.budgets))
    real = (grid >= 0) & keep[grid]
    same = signatures(problem)[grid]
    beats = real[:, :, None] & real[:, None, :] & (same[:, :, None] == same[:, None, :])
    equal = np.ones_like(beats)
    for values in (problem.costs, *(problem.column(name) for name in names)):
        table = values[grid]
        beats &= table[:, :, None] <= table[:, None, :]
        equal &= table[:, :, None] == table[:, None, :]
    later = np.tri(grid.shape[1], k=-1, dtype=bool).T  # [i, j]: i comes before j
    beaten = (beats & (~equal | later)).any(axis=1)
    result = keep.copy()
    result[grid[beaten & real]] = False
    return result
