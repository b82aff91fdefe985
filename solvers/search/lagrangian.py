"""The Lagrangian relaxation: budgets priced instead of bounded, so that every unit chooses for itself.

For prices p >= 0 the least of cost + p . (weight - slack) is a lower bound on every choice within the budgets (weak
duality; Fisher 1981, "The Lagrangian relaxation method for solving integer programming problems").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.search.core import Core, Floats, Ints, shrink


@dataclass(frozen=True, eq=False)
class DualPoint:
    """The relaxation at some prices. value: the bound, above the core's base; entries: what it chooses, one a group;
    cost and weight (B,) of these; reduced (E,), cells (M,), ways (W,), units (U,): the priced least of each."""

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
    """The relaxation at those prices (B,)."""
    reduced = core.cost + core.weight @ prices
    cells = np.minimum.reduceat(reduced, core.cells)
    ways = np.add.reduceat(cells, core.ways)
    units = np.minimum.reduceat(ways, core.units)
    entries = _chosen(core, reduced == cells[core.cell_of], ways)
    weight = core.weight[entries].sum(axis=0)
    value = float(units.sum() - prices @ core.slack)
    return DualPoint(prices, value, entries, float(core.cost[entries].sum()), weight, reduced, cells, ways, units)


def lightest(core: Core, values: Floats) -> Ints:
    """The entries, one a group, of the least sum of `values` (E,), budgets aside."""
    cells = np.minimum.reduceat(values, core.cells)
    ways = np.add.reduceat(cells, core.ways)
    return _chosen(core, values == cells[core.cell_of], ways)


def forced(core: Core, point: DualPoint) -> Floats:
    """(E,): the bound, above the core's base, on every choice that takes the entry."""
    way = point.ways - point.units[core.unit_of]  # differences first, so that what is chosen adds exactly 0
    return point.value + (way[core.way_of[core.cell_of]] + (point.reduced - point.cells[core.cell_of]))


def fix(core: Core, points: list[DualPoint], most: float) -> Core | None:
    """The core without entries that no choice of a cost up to `most` takes; None where there is no such choice.

    Reduced-cost fixing (Dyer, Kayal and Walker 1984), at several prices. points must be of this core.
    """
    keep = np.ones(len(core.candidate), dtype=bool)
    for point in points:
        keep &= forced(core, point) <= most
    return core if keep.all() else shrink(core, keep)


def _chosen(core: Core, hits: NDArray[np.bool_], ways: Floats) -> Ints:
    """In each cell of each unit's least way the first entry that hits."""
    least = np.minimum.reduceat(ways, core.units)
    taken = np.zeros(len(core.ways), dtype=bool)
    taken[first_of(ways == least[core.unit_of], core.unit_of, len(core.units))] = True
    return first_of(hits, core.cell_of, len(core.cells))[taken[core.way_of]]


def first_of(hits: NDArray[np.bool_], owners: Ints, count: int) -> Ints:
    """The first hit of each owner."""
    places = np.flatnonzero(hits)[::-1]
    first = np.empty(count, dtype=np.int64)
    first[owners[places]] = places
    return first
