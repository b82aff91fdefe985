"""Repair: from the minimiser of the relaxation to a choice within the budgets, by single moves.

A move puts another entry in one cell of the chosen way, or the best entries of another way in one unit. While a budget
is exceeded, take the move of the least cost with prices for each unit of excess that it removes; then take the moves
that save most and still fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitplan.solvers.search.core import Core, Floats, Ints
from bitplan.solvers.search.relaxation import DualPoint, first_of

_LEAST = 1e-12  # share of a budget: a move that removes less excess is not considered


@dataclass(frozen=True, eq=False)
class Assignment:
    """The current choice of the repair.

    Attributes:
        entries: (M,) the entry of each cell, also of ways that are not chosen.
        ways: (U,) the chosen way of each unit.
        weight: (B,) the sums of the chosen entries.
        cost: the sum of their costs.
    """

    entries: Ints
    ways: Ints
    weight: Floats
    cost: float


def repair(core: Core, point: DualPoint) -> Ints | None:
    """Return the entries of a choice within the slack, near the relaxation's; None where no move helps any more."""
    scale = np.where(core.slack > 0, core.slack, 1.0)
    best = first_of(point.reduced == point.cells[core.cell_of], core.cell_of, len(core.cells))
    chosen = first_of(point.ways == point.units[core.unit_of], core.unit_of, len(core.units))
    current = Assignment(best, chosen, point.weight, point.cost)
    for _ in range(4 * len(core.units) + 16):
        excess = np.maximum(current.weight - core.slack, 0) / scale
        if not excess.any():
            return _improve(core, point, current)
        better = _reduce_excess(core, point, current, excess, scale)
        if better is None:
            return None
        current = better
    return None


def _differences(core: Core, point: DualPoint, current: Assignment) -> tuple[Floats, Floats, Floats]:
    """Return the change by each move: cost and cost with prices (E + W,), inf if impossible; weight (E + W, B)."""
    now = current.entries[core.cell_of]
    alive = np.zeros(len(core.ways), dtype=bool)
    alive[current.ways] = True
    open_cells = alive[core.way_of]
    here = open_cells[core.cell_of]
    cost = np.where(here, core.cost - core.cost[now], np.inf)
    priced = np.where(here, point.reduced - point.reduced[now], np.inf)
    weight = core.weight - core.weight[now]
    if len(core.ways) == len(core.units):
        return cost, priced, weight
    sums = [np.add.reduceat(values[current.entries], core.ways, axis=0)
            for values in (core.cost, point.reduced, core.weight)]  # fmt: skip
    old = current.ways[core.unit_of]
    ways = [values - values[old] for values in sums]
    return (
        np.concatenate([cost, np.where(alive, np.inf, ways[0])]),
        np.concatenate([priced, np.where(alive, np.inf, ways[1])]),
        np.concatenate([weight, ways[2]]),
    )


def _reduce_excess(
    core: Core, point: DualPoint, current: Assignment, excess: Floats, scale: Floats
) -> Assignment | None:
    cost, priced, weight = _differences(core, point, current)
    after = np.maximum(current.weight + weight - core.slack, 0) / scale
    removed = excess.sum() - after.sum(axis=1)
    useful = (removed > _LEAST) & np.isfinite(cost)
    if not useful.any():
        return None
    floor = max(float(np.ptp(core.cost)), 1e-300) * 1e-12
    rate = np.where(useful, np.maximum(priced, floor) / np.where(useful, removed, 1.0), np.inf)
    return _take(core, current, int(rate.argmin()), cost, weight)


def _improve(core: Core, point: DualPoint, current: Assignment) -> Ints:
    for _ in range(4 * len(core.units) + 16):
        cost, _, weight = _differences(core, point, current)
        fits = (current.weight + weight <= core.slack).all(axis=1)
        change = np.where(fits, cost, np.inf)
        move = int(change.argmin())
        if not change[move] < 0:
            break
        current = _take(core, current, move, cost, weight)
    alive = np.zeros(len(core.ways), dtype=bool)
    alive[current.ways] = True
    return current.entries[alive[core.way_of]]


def _take(core: Core, current: Assignment, move: int, cost: Floats, weight: Floats) -> Assignment:
    entries, ways = current.entries, current.ways
    if move < len(core.candidate):
        entries = entries.copy()
        entries[core.cell_of[move]] = move
    else:
        ways = ways.copy()
        ways[core.unit_of[move - len(core.candidate)]] = move - len(core.candidate)
    return Assignment(entries, ways, current.weight + weight[move], current.cost + float(cost[move]))
