"""The Lagrangian relaxation: budgets get prices instead of limits, so that every unit can be minimised separately.

For prices p >= 0 the least cost + p . (weight - slack) is a lower bound on every choice within the budgets (weak
duality; Fisher 1981, "The Lagrangian relaxation method for solving integer programming problems").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.search.core import Core, Floats, Ints, shrink


@dataclass(frozen=True, eq=False)
class DualPoint:
    """The relaxation at one vector of prices.

    Attributes:
        prices: (B,) for one unit of each budget.
        value: the lower bound, above the core's base.
        entries: (N,) the minimiser, one entry for each group.
        cost: the sum of its costs.
        weight: (B,) the sums of its weights.
        reduced: (E,) the cost of each entry with prices.
        cells, ways, units: (M,), (W,), (U,) the least cost with prices of each.
    """

    prices: Floats
    value: float
    entries: Ints
    cost: float
    weight: Floats
    reduced: Floats
    cells: Floats
    ways: Floats
    units: Floats


def relax(core: Core, prices: Floats) -> DualPoint:
    """Evaluate the relaxation at the prices (B,)."""
    reduced = core.cost + core.weight @ prices
    cells = np.minimum.reduceat(reduced, core.cells)
    ways = np.add.reduceat(cells, core.ways)
    units = np.minimum.reduceat(ways, core.units)
    entries = _chosen(core, reduced == cells[core.cell_of], ways)
    weight = core.weight[entries].sum(axis=0)
    value = float(units.sum() - prices @ core.slack)
    return DualPoint(prices, value, entries, float(core.cost[entries].sum()), weight, reduced, cells, ways, units)


def lightest(core: Core, values: Floats) -> Ints:
    """Return the entries, one for each group, of the least sum of `values` (E,); budgets are ignored."""
    cells = np.minimum.reduceat(values, core.cells)
    ways = np.add.reduceat(cells, core.ways)
    return _chosen(core, values == cells[core.cell_of], ways)


def forced(core: Core, point: DualPoint) -> Floats:
    """Return (E,) for each entry the lower bound, above the core's base, on every choice that takes it."""
    way = point.ways - point.units[core.unit_of]  # differences first: chosen entries add exactly 0
    return point.value + (way[core.way_of[core.cell_of]] + (point.reduced - point.cells[core.cell_of]))


def fix(core: Core, points: list[DualPoint], most: float) -> Core | None:
    """Return the core without entries that no choice of cost up to `most` takes; None where there is no such choice.

    This is reduced-cost fixing (Dyer, Kayal and Walker 1984) at several prices; the points must be of this core.
    """
    keep = np.ones(len(core.candidate), dtype=bool)
    for point in points:
        keep &= forced(core, point) <= most
    return core if keep.all() else shrink(core, keep)


def _chosen(core: Core, hits: NDArray[np.bool_], ways: Floats) -> Ints:
    """Return the first entry with a hit in each cell of each unit's least way."""
    least = np.minimum.reduceat(ways, core.units)
    chosen = np.zeros(len(core.ways), dtype=bool)
    chosen[first_of(ways == least[core.unit_of], core.unit_of, len(core.units))] = True
    return first_of(hits, core.cell_of, len(core.cells))[chosen[core.way_of]]


def first_of(hits: NDArray[np.bool_], owners: Ints, count: int) -> Ints:
    """Return the first hit of each owner."""
    places = np.flatnonzero(hits)[::-1]
    first = np.empty(count, dtype=np.int64)
    first[owners[places]] = places
    return first
