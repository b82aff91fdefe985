"""A dynamic program over units whose partial choices are dropped by bounds: the best choice, or the proof of none.

Each label is a partial choice with its cost and weights. It is dropped where the Lagrangian bound at any of several
prices says that no completion costs less than the best choice known, where its weights fit no completion, and, under
one budget, where another label is no heavier and no dearer (Dyer, Kayal and Walker 1984, "A branch and bound algorithm
for solving the multiple-choice knapsack problem"; Pisinger 1995, "A minimal algorithm for the multiple-choice knapsack
problem", for one budget and one price). Where labels stay few this proves faster than branching.
Shapes: S labels, K prices, O options; see `core` for the others.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.search.core import Core, Floats, Ints
from bitplan.solvers.search.lagrangian import DualPoint

MOST_OPTIONS = 4096


class OutOfRoomError(Exception):
    """More labels, or more time, were needed than allowed; nothing is known."""


@dataclass(frozen=True, eq=False)
class _LabelOptions:
    """All that one part of the choice can take: a unit, or one cell of a unit that has a single way, for there cells
    choose alone. cost (O,), weight (O, B); entries (O, ...): what each stands for; floor (K,): the priced least."""

    cost: Floats
    weight: Floats
    entries: list[Ints]
    floor: Floats


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
    """Every step that was taken, one array a unit: the step before it, and its option; step 0 is the beginning."""

    before: list[Ints] = field(default_factory=lambda: [np.array([-1])])
    option: list[Ints] = field(default_factory=lambda: [np.array([-1])])
    count: int = 1

    def extend(self, before: Ints, option: Ints) -> Ints:
        """Numbers of the new steps."""
        self.before.append(before)
        self.option.append(option)
        self.count += len(before)
        return np.arange(self.count - len(before), self.count)

    def walk(self, node: int) -> list[int]:
        """The options that lead to a step, the first unit's first."""
        before, option = np.concatenate(self.before), np.concatenate(self.option)
        found = []
        while node > 0:
            found.append(int(option[node]))
            node = int(before[node])
        return found[::-1]


def search(core: Core, points: list[DualPoint], most: float, width: int, deadline: float = math.inf) -> Ints | None:
    """The entries of the best choice that costs less than `most`, or None: there is none.

    points: relaxations of this core, whose prices give the bounds. width: how many labels to hold at once; deadline: on
    the clock `time.monotonic`. Raises OutOfRoomError.
    """
    closed, choosing = _parts(core, points)
    prices = np.array([point.prices for point in points])
    rest = sum((options.floor for options in choosing), -prices @ core.slack)
    light = sum((options.weight.min(axis=0) for options in choosing), np.zeros(len(core.slack)))
    labels, trail = _root(core, closed), _Trail()
    for options in choosing:
        rest, light = rest - options.floor, light - options.weight.min(axis=0)
        labels = _grow(labels, options, trail, (prices, rest, core.slack - light, most))
        if len(labels.cost) > width or time.monotonic() > deadline:
            raise OutOfRoomError
    if not len(labels.cost):
        return None
    best = int(labels.cost.argmin())
    if labels.cost[best] >= most or (labels.weight[best] > core.slack).any():
        return None
    steps = trail.walk(int(labels.node[best]))
    return np.concatenate([closed, *(options.entries[o] for options, o in zip(choosing, steps, strict=True))])


def _parts(core: Core, points: list[DualPoint]) -> tuple[Ints, list[_LabelOptions]]:
    """The entries of what cannot choose, and what can, heaviest first: what comes last fills small gaps, so that bounds
    get tight."""
    sizes = core.end_of_cell - core.cells
    single = (core.end_of_unit - core.units == 1)[core.unit_of][core.way_of]
    closed = core.cells[single & (sizes == 1)]
    cells, units = np.array([p.cells for p in points]), np.array([p.units for p in points])
    found = [_options(core, [range(c, c + 1)], cells[:, c]) for c in np.flatnonzero(single & (sizes > 1)).tolist()]
    for unit in np.flatnonzero(core.end_of_unit - core.units > 1).tolist():
        ways = [range(core.ways[w], core.end_of_way[w]) for w in range(core.units[unit], core.end_of_unit[unit])]
        found.append(_options(core, ways, units[:, unit]))
    slack = np.where(core.slack > 0, core.slack, 1.0)
    return closed, sorted(found, key=lambda options: -float((np.ptp(options.weight, axis=0) / slack).sum()))


def _options(core: Core, ways: list[range], floor: Floats) -> _LabelOptions:
    """Every way, given by its cells, with every entry in each of them."""
    rows: list[Ints] = []
    for cells in ways:
        first, sizes = core.cells[cells], core.end_of_cell[cells] - core.cells[cells]
        wide = np.flatnonzero(sizes > 1)
        if len(rows) + math.prod(sizes[wide].tolist()) > MOST_OPTIONS:
            raise OutOfRoomError
        for places in np.ndindex(*sizes[wide].tolist()):
            row = first.copy()
            row[wide] += np.array(places, dtype=np.int64)
            rows.append(row)
    cost = np.array([core.cost[row].sum() for row in rows])
    weight = np.array([core.weight[row].sum(axis=0) for row in rows])
    return _LabelOptions(cost, weight, rows, floor)


def _root(core: Core, closed: Ints) -> _Labels:
    """The label of what cannot choose."""
    weight = core.weight[closed].sum(axis=0)[None]
    return _Labels(np.array([core.cost[closed].sum()]), weight, np.full(1, -np.inf), np.zeros(1, dtype=np.int64))


def _grow(
    labels: _Labels, options: _LabelOptions, trail: _Trail, rules: tuple[Floats, Floats, Floats, float]
) -> _Labels:
    """Every label with every option, but those that a bound rules out. rules: prices (K, B), what the rest costs at
    each (K,), what it leaves of the slack (B,), the cost to stay below."""
    (prices, rest, room, most), count = rules, len(options.cost)
    cost = (labels.cost[:, None] + options.cost).ravel()
    weight = (labels.weight[:, None, :] + options.weight).reshape(len(cost), len(room))
    priced = (cost[:, None] + weight @ prices.T + rest).max(axis=1)
    bound = np.maximum(np.repeat(labels.bound, count), priced)
    alive = np.flatnonzero((bound < most) & (weight <= room).all(axis=1))
    if len(room) == 1:
        alive = _undercut(cost, weight[:, 0], alive)
    before, option = np.divmod(alive, count)
    return _Labels(cost[alive], weight[alive], bound[alive], trail.extend(labels.node[before], option))


def _undercut(cost: Floats, weight: Floats, alive: Ints) -> Ints:
    """Of the labels alive only those that no lighter one undercuts."""
    alive = alive[np.lexsort((cost[alive], weight[alive]))]
    lowest = np.minimum.accumulate(cost[alive])
    kept: Ints = alive[np.append(True, np.diff(lowest) < 0)[: len(alive)]]
    return kept
