"""From what the relaxation chooses to a choice within the budgets, by single moves at its prices.

A move puts another entry in one cell of the chosen way, or another way's best entries in one unit. While a budget is
broken: the move that costs least, at the prices, for what it mends. Then: the moves that save most and still fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitplan.solvers.search.core import Core, Floats, Ints
from bitplan.solvers.search.lagrangian import DualPoint, first_of

_DUST = 1e-12  # of a budget: no step that mends less is worth a move


@dataclass(frozen=True, eq=False)
class Occupancy:
    """entries (M,): what each cell holds, chosen way or not; ways (U,): the way of each unit; weight (B,), cost."""

    entries: Ints
    ways: Ints
    weight: Floats
    cost: float


def repair(core: Core, point: DualPoint) -> Ints | None:
    """The entries of a choice within the slack, near the relaxation's, or None where the moves lead nowhere."""
    unit = np.where(core.slack > 0, core.slack, 1.0)
    best = first_of(point.reduced == point.cells[core.cell_of], core.cell_of, len(core.cells))
    chosen = first_of(point.ways == point.units[core.unit_of], core.unit_of, len(core.units))
    taken = Occupancy(best, chosen, point.weight, point.cost)
    for _ in range(4 * len(core.units) + 16):
        over = np.maximum(taken.weight - core.slack, 0) / unit
        if not over.any():
            return _polish(core, point, taken)
        step = _mend(core, point, taken, over, unit)
        if step is None:
            return None
        taken = step
    return None


def _differences(core: Core, point: DualPoint, taken: Occupancy) -> tuple[Floats, Floats, Floats]:
    """What every move changes: cost and priced cost (E + W,), weight (E + W, B); inf where it cannot be made."""
    now = taken.entries[core.cell_of]
    alive = np.zeros(len(core.ways), dtype=bool)
    alive[taken.ways] = True
    open_cells = alive[core.way_of]
    here = open_cells[core.cell_of]
    cost = np.where(here, core.cost - core.cost[now], np.inf)
    priced = np.where(here, point.reduced - point.reduced[now], np.inf)
    weight = core.weight - core.weight[now]
    if len(core.ways) == len(core.units):
        return cost, priced, weight
    held = [np.add.reduceat(values[taken.entries], core.ways, axis=0)
            for values in (core.cost, point.reduced, core.weight)]  # fmt: skip
    old = taken.ways[core.unit_of]
    ways = [values - values[old] for values in held]
    return (
        np.concatenate([cost, np.where(alive, np.inf, ways[0])]),
        np.concatenate([priced, np.where(alive, np.inf, ways[1])]),
        np.concatenate([weight, ways[2]]),
    )


def _mend(core: Core, point: DualPoint, taken: Occupancy, over: Floats, unit: Floats) -> Occupancy | None:
    cost, priced, weight = _differences(core, point, taken)
    left = np.maximum(taken.weight + weight - core.slack, 0) / unit
    mended = over.sum() - left.sum(axis=1)
    useful = (mended > _DUST) & np.isfinite(cost)
    if not useful.any():
        return None
    floor = max(float(np.ptp(core.cost)), 1e-300) * 1e-12
    rate = np.where(useful, np.maximum(priced, floor) / np.where(useful, mended, 1.0), np.inf)
    return _take(core, taken, int(rate.argmin()), cost, weight)


def _polish(core: Core, point: DualPoint, taken: Occupancy) -> Ints:
    for _ in range(4 * len(core.units) + 16):
        cost, _, weight = _differences(core, point, taken)
        fits = (taken.weight + weight <= core.slack).all(axis=1)
        gain = np.where(fits, cost, np.inf)
        move = int(gain.argmin())
        if not gain[move] < 0:
            break
        taken = _take(core, taken, move, cost, weight)
    alive = np.zeros(len(core.ways), dtype=bool)
    alive[taken.ways] = True
    return taken.entries[alive[core.way_of]]


def _take(core: Core, taken: Occupancy, move: int, cost: Floats, weight: Floats) -> Occupancy:
    entries, ways = taken.entries, taken.ways
    if move < len(core.candidate):
        entries = entries.copy()
        entries[core.cell_of[move]] = move
    else:
        ways = ways.copy()
        ways[core.unit_of[move - len(core.candidate)]] = move - len(core.candidate)
    return Occupancy(entries, ways, taken.weight + weight[move], taken.cost + float(cost[move]))
