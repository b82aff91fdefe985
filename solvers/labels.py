"""A dynamic program over units whose partial choices are dropped by bounds: the best choice, or the proof of none.

Each label is a partial choice with its cost and weights. It is dropped where the Lagrangian bound at any of several
prices says that no completion costs less than the best choice known, where its weights fit no completion, and, under
one budget, where another label is no heavier and no dearer (Dyer, Kayal and Walker 1984, "A branch and bound algorithm
for solving the multiple-choice knapsack problem"; Pisinger 1995, "A minimal algorithm for the multiple-choice knapsack
problem", for one budget and one price). Where labels stay few this proves faster than branching.
Shapes: S labels, K prices; see `core` for the others.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from solvers.core import Core, Floats, Ints
from solvers.lagrangian import Point


class OutOfRoomError(Exception):
    """More labels, or more time, were needed than allowed; nothing is known."""


@dataclass(frozen=True, eq=False)
class _Bounds:
    """What completions cost and weigh at least. prices (K, B); units (K, U), cells (K, M): priced least of each;
    lightest (U, B), light (M, B): least weights; rest (K,), weight (B,): the sums over all that is not decided."""

    prices: Floats
    units: Floats
    cells: Floats
    lightest: Floats
    light: Floats
    rest: Floats
    weight: Floats

    def without(self, unit: int) -> _Bounds:
        """Once the unit is decided."""
        return replace(self, rest=self.rest - self.units[:, unit], weight=self.weight - self.lightest[unit])

    def after(self, cell: int, end: int) -> _Bounds:
        """Within a way, where the cells from the next up to `end` are still to come."""
        if cell + 1 == end:
            return self
        later = slice(cell + 1, end)
        rest, weight = self.cells[:, later].sum(axis=1), self.light[later].sum(axis=0)
        return replace(self, rest=self.rest + rest, weight=self.weight + weight)


@dataclass(frozen=True, eq=False)
class _Labels:
    """Partial choices: cost (S,), weight (S, B), bound (S,) on every completion; node (S,): the last step of each."""

    cost: Floats
    weight: Floats
    bound: Floats
    node: Ints

    def take(self, places: NDArray[np.int64]) -> _Labels:
        return _Labels(self.cost[places], self.weight[places], self.bound[places], self.node[places])


@dataclass
class _Trail:
    """Every step that was taken: the step before it, and its entry; step 0 is the beginning."""

    before: list[Ints] = field(default_factory=lambda: [np.array([-1])])
    entry: list[Ints] = field(default_factory=lambda: [np.array([-1])])
    count: int = 1

    def extend(self, before: Ints, entry: Ints) -> Ints:
        """Numbers of the new steps."""
        self.before.append(before)
        self.entry.append(entry)
        self.count += len(before)
        return np.arange(self.count - len(before), self.count)

    def walk(self, node: int) -> Ints:
        """The entries that lead to a step."""
        before, entry = np.concatenate(self.before), np.concatenate(self.entry)
        found = []
        while node > 0:
            found.append(entry[node])
            node = before[node]
        return np.array(found, dtype=np.int64)


def search(core: Core, points: list[Point], most: float, width: int, deadline: float = math.inf) -> Ints | None:
    """The entries of the best choice that costs less than `most`, or None: there is none.

    points: relaxations of this core, whose prices give the bounds. width: how many labels to hold at once; deadline: on
    the clock `time.monotonic`. Raises OutOfRoomError.
    """
    free = _free(core)
    closed = np.flatnonzero(~free[core.unit_of][core.way_of][core.cell_of])
    bounds, labels, trail = _bounds(core, points, free), _root(core, closed), _Trail()
    for unit in _order(core, free):
        bounds, parts = bounds.without(unit), []
        for way in range(core.units[unit], core.end_of_unit[unit]):
            part, end = labels, core.end_of_way[way]
            for cell in range(core.ways[way], end):
                part = _grow(core, part, trail, cell, (bounds.after(cell, end), most))
                if len(part.cost) > width or time.monotonic() > deadline:
                    raise OutOfRoomError
            parts.append(part)
        labels = _thin(_join(parts))
    if not len(labels.cost):
        return None
    place = int(labels.cost.argmin())
    if labels.cost[place] >= most or (labels.weight[place] > core.slack).any():
        return None
    return np.concatenate([closed, trail.walk(int(labels.node[place]))])


def _free(core: Core) -> NDArray[np.bool_]:
    """(U,): units that can choose at all."""
    entries = np.bincount(core.unit_of[core.way_of][core.cell_of], minlength=len(core.units))
    return entries > np.diff(core.ways, append=len(core.cells))[core.units]


def _root(core: Core, closed: Ints) -> _Labels:
    """The label of what cannot choose."""
    weight = core.weight[closed].sum(axis=0)[None]
    return _Labels(np.array([core.cost[closed].sum()]), weight, np.full(1, -np.inf), np.zeros(1, dtype=np.int64))


def _bounds(core: Core, points: list[Point], free: NDArray[np.bool_]) -> _Bounds:
    prices = np.array([point.prices for point in points])
    units, cells = np.array([point.units for point in points]), np.array([point.cells for point in points])
    light = np.minimum.reduceat(core.weight, core.cells)
    lightest = np.minimum.reduceat(np.add.reduceat(light, core.ways), core.units)
    rest = units[:, free].sum(axis=1) - prices @ core.slack
    return _Bounds(prices, units, cells, lightest, light, rest, lightest[free].sum(axis=0))


def _order(core: Core, free: NDArray[np.bool_]) -> Ints:
    """Heaviest choices first: what comes last fills small gaps, so that bounds get tight."""
    unit = np.where(core.slack > 0, core.slack, 1.0)
    spread = (np.maximum.reduceat(core.weight, core.cells) - np.minimum.reduceat(core.weight, core.cells)) / unit
    ways = np.add.reduceat(spread.sum(axis=1), core.ways)
    places = np.flatnonzero(free)
    return places[np.argsort(-np.maximum.reduceat(ways, core.units)[places], kind="stable")]


def _grow(core: Core, labels: _Labels, trail: _Trail, cell: int, rules: tuple[_Bounds, float]) -> _Labels:
    """Every label with every entry of one cell, but those that some bound rules out."""
    bounds, most = rules
    span = slice(core.cells[cell], core.end_of_cell[cell])
    count = span.stop - span.start
    cost = (labels.cost[:, None] + core.cost[span]).ravel()
    weight = (labels.weight[:, None, :] + core.weight[span]).reshape(len(cost), core.weight.shape[1])
    priced = (cost[:, None] + weight @ bounds.prices.T + bounds.rest).max(axis=1)
    bound = np.maximum(np.repeat(labels.bound, count), priced)
    alive = np.flatnonzero((bound < most) & (weight + bounds.weight <= core.slack).all(axis=1))
    before, place = np.divmod(alive, count)
    return _Labels(cost[alive], weight[alive], bound[alive], trail.extend(labels.node[before], place + span.start))


def _join(parts: list[_Labels]) -> _Labels:
    if len(parts) == 1:
        return parts[0]
    return _Labels(
        np.concatenate([part.cost for part in parts]), np.concatenate([part.weight for part in parts]),
        np.concatenate([part.bound for part in parts]), np.concatenate([part.node for part in parts]),
    )  # fmt: skip


def _thin(labels: _Labels) -> _Labels:
    """Under one budget: only labels that no lighter one undercuts. Otherwise all."""
    if labels.weight.shape[1] != 1:
        return labels
    order = np.lexsort((labels.cost, labels.weight[:, 0]))
    lowest = np.minimum.accumulate(labels.cost[order])
    return labels.take(order[np.append(True, np.diff(lowest) < 0)[: len(order)]])
