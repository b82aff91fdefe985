"""The Lagrangian relaxation: budgets priced instead of bounded, so that every unit chooses for itself.

For prices p >= 0 the least of cost + p . (weight - slack) is a lower bound on every choice within the budgets (weak
duality; Fisher 1981, "The Lagrangian relaxation method for solving integer programming problems").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvers.core import Core, Floats, Ints, shrink


@dataclass(frozen=True, eq=False)
class Point:
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


def relax(core: Core, prices: Floats) -> Point:
    """The relaxation at those prices (B,)."""
    reduced = core.cost + core.weight @ prices
    cells = np.minimum.reduceat(reduced, core.cells)
    ways = np.add.reduceat(cells, core.ways)
    units = np.minimum.reduceat(ways, core.units)
    entries = first_of(reduced == cells[core.cell_of], core.cell_of, len(core.cells))
    best_ways = first_of(ways == units[core.unit_of], core.unit_of, len(core.units))
    taken = np.zeros(len(core.ways), dtype=bool)
    taken[best_ways] = True
    entries = entries[taken[core.way_of]]
    weight = core.weight[entries].sum(axis=0)
    value = float(units.sum() - prices @ core.slack)
    return Point(prices, value, entries, float(core.cost[entries].sum()), weight, reduced, cells, ways, units)


def forced(core: Core, point: Point) -> Floats:
    """(E,): the bound, above the core's base, on every choice that takes the entry."""
    way = point.value + point.ways - point.units[core.unit_of]
    return way[core.way_of[core.cell_of]] + point.reduced - point.cells[core.cell_of]


def fix(core: Core, points: list[Point], most: float) -> Core | None:
    """The core without entries that no choice of a cost up to `most` takes; None where there is no such choice.

    Reduced-cost fixing (Dyer, Kayal and Walker 1984), at several prices. points must be of this core.
    """
    keep = np.ones(len(core.candidate), dtype=bool)
    for point in points:
        keep &= forced(core, point) <= most
    return core if keep.all() else shrink(core, keep)


def first_of(hits: np.ndarray, owners: Ints, count: int) -> Ints:
    """The first hit of each owner."""
    places = np.flatnonzero(hits)[::-1]
    first = np.empty(count, dtype=np.int64)
    first[owners[places]] = places
    return first
