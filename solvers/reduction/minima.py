"""Minimisation without budgets: a sum of separate minima, exact and fast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Column, Mask, Picks, Problem
from bitplan.solvers.reduction.ties import Bundle, bundles, labellings


def cheapest(problem: Problem, values: Column, keep: Mask) -> Picks | None:
    """Return the kept candidates of the least sum of `values` (C,) under the ties; None if the ties leave no choice.

    Budgets are ignored; integer columns are summed exactly. Raises ProblemError for ties that overlap in too many ways.
    """
    numbers = values.astype(object) if values.dtype.kind == "i" else values
    picks = np.full(len(problem.groups), -1, dtype=np.int64)
    for bundle in bundles(problem):
        if bundle.ties:
            best = _cheapest_labelling(problem, bundle, numbers, keep)
            if best is None:
                return None
            picks[list(bundle.places)] = best
    free = picks < 0
    least = minima(problem, values, keep)[1]
    picks[free] = least[free]
    return None if (picks < 0).any() else tuple(int(pick) for pick in picks)


def minima(problem: Problem, values: Column, keep: Mask) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each group's least kept value (N,) and its candidate (N,); inf and -1 where no candidate is kept.

    Ties and budgets are ignored.
    """
    grid = problem.grid
    table = np.where((grid >= 0) & keep[grid], values.astype(np.float64)[grid], np.inf)
    place = table.argmin(axis=1)
    rows = np.arange(len(grid))
    least = table[rows, place]
    return least, np.where(np.isfinite(least), grid[rows, place], -1)


def _cheapest_labelling(
    problem: Problem, bundle: Bundle, values: NDArray[np.generic], keep: Mask
) -> NDArray[np.int64] | None:
    best, least = None, None
    for members in labellings(problem, bundle, keep):
        picks = [candidates[values[candidates].argmin()] for candidates in members]
        total = sum(values[pick] for pick in picks)
        if least is None or total < least:
            best, least = np.array(picks), total
    return best
