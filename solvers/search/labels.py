"""Labelling: a dynamic program over units with bounds; it finds the best choice or proves that there is none.

A label is a partial choice with its cost and weights. It is pruned where the Lagrangian bound at any of several prices
shows that no completion costs less than the best known choice, where its weights leave no room for a completion, and,
under one budget, where another label is neither heavier nor more expensive (Dyer, Kayal and Walker 1984, "A branch and
bound algorithm for solving the multiple-choice knapsack problem"; Pisinger 1995, "A minimal algorithm for the
multiple-choice knapsack problem", for one budget and one price). While labels are few, this proves optimality faster
than branching.
Shapes: S labels, K prices, O options; see `core` for the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.effort import UNLIMITED, Deadline
from bitplan.solvers.search.core import Core, Floats, Ints
from bitplan.solvers.search.relaxation import DualPoint

MOST_OPTIONS = 4096


class OutOfRoomError(Exception):
    """The search needed more labels or more time than allowed and has no result."""


@dataclass(frozen=True, eq=False)
class _LabelOptions:
    """The options of one step: of a unit, or of one cell of a unit with a single way, whose cells are independent.

    Attributes:
        cost, weight: (O,) and (O, B) of each option.
        entries: O arrays, the entries of each option.
        floor: (K,) the least cost with prices.
    """

    cost: Floats
    weight: Floats
    entries: list[Ints]
    floor: Floats


@dataclass(frozen=True, eq=False)
class _Labels:
    """Partial choices.

    Attributes:
        cost, weight: (S,) and (S, B) of each label.
        bound: (S,) the lower bound on every completion.
        node: (S,) the node of its last step in the tree.
    """

    cost: Floats
    weight: Floats
    bound: Floats
    node: Ints

    def take(self, places: NDArray[np.int64]) -> _Labels:
        return _Labels(self.cost[places], self.weight[places], self.bound[places], self.node[places])


@dataclass
class _Tree:
    """The tree of all partial choices; node 0 is the root.

    Attributes:
        parent: for each step, the parents of its nodes.
        option: for each step, the options of its nodes.
        count: the number of nodes.
    """

    parent: list[Ints] = field(default_factory=lambda: [np.array([-1])])
    option: list[Ints] = field(default_factory=lambda: [np.array([-1])])
    count: int = 1

    def extend(self, parent: Ints, option: Ints) -> Ints:
        """Add one node for each pair and return their numbers."""
        self.parent.append(parent)
        self.option.append(option)
        self.count += len(parent)
        return np.arange(self.count - len(parent), self.count)

    def path(self, node: int) -> list[int]:
        """Return the options from the root to the node."""
        parent, option = np.concatenate(self.parent), np.concatenate(self.option)
        options = []
        while node > 0:
            options.append(int(option[node]))
            node = int(parent[node])
        return options[::-1]


def search(core: Core, points: list[DualPoint], most: float, width: int, deadline: Deadline = UNLIMITED) -> Ints | None:
    """Return the entries of the best choice that costs less than `most`; None if there is no such choice.

    Args:
        core: the core to search.
        points: relaxations of this core; their prices give the bounds.
        most: the cost to stay below.
        width: the most labels after a step.
        deadline: when to end.

    Raises:
        OutOfRoomError: for too many labels, or past the deadline.
    """
    fixed, steps = _steps(core, points)
    prices = np.array([point.prices for point in points])
    rest = sum((options.floor for options in steps), -prices @ core.slack)
    light = sum((options.weight.min(axis=0) for options in steps), np.zeros(len(core.slack)))
    labels, tree = _root(core, fixed), _Tree()
    for options in steps:
        rest, light = rest - options.floor, light - options.weight.min(axis=0)
        labels = _extend(labels, options, tree, (prices, rest, core.slack - light, most))
        if len(labels.cost) > width or not deadline.left():
            raise OutOfRoomError
    if not len(labels.cost):
        return None
    best = int(labels.cost.argmin())
    if labels.cost[best] >= most or (labels.weight[best] > core.slack).any():
        return None
    path = tree.path(int(labels.node[best]))
    return np.concatenate([fixed, *(options.entries[o] for options, o in zip(steps, path, strict=True))])


def _steps(core: Core, points: list[DualPoint]) -> tuple[Ints, list[_LabelOptions]]:
    """Return the entries without an alternative, and the options of each step.

    Steps whose weights vary most come first: the last ones then fill small gaps, so that bounds are tight.
    """
    sizes = core.end_of_cell - core.cells
    single = (core.end_of_unit - core.units == 1)[core.unit_of][core.way_of]
    fixed = core.cells[single & (sizes == 1)]
    cells, units = np.array([p.cells for p in points]), np.array([p.units for p in points])
    steps = [_options(core, [range(c, c + 1)], cells[:, c]) for c in np.flatnonzero(single & (sizes > 1)).tolist()]
    for unit in np.flatnonzero(core.end_of_unit - core.units > 1).tolist():
        ways = [range(core.ways[w], core.end_of_way[w]) for w in range(core.units[unit], core.end_of_unit[unit])]
        steps.append(_options(core, ways, units[:, unit]))
    slack = np.where(core.slack > 0, core.slack, 1.0)
    return fixed, sorted(steps, key=lambda options: -float((np.ptp(options.weight, axis=0) / slack).sum()))


def _options(core: Core, ways: list[range], floor: Floats) -> _LabelOptions:
    """Return every combination of entries of every way; `ways` gives the cells of each."""
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


def _root(core: Core, fixed: Ints) -> _Labels:
    """Return the one label of the entries without an alternative."""
    weight = core.weight[fixed].sum(axis=0)[None]
    return _Labels(np.array([core.cost[fixed].sum()]), weight, np.full(1, -np.inf), np.zeros(1, dtype=np.int64))


def _extend(
    labels: _Labels, options: _LabelOptions, tree: _Tree, limits: tuple[Floats, Floats, Floats, float]
) -> _Labels:
    """Combine every label with every option, and prune by the bounds.

    limits: prices (K, B), the least cost of the later steps at each (K,), the slack that their least weights leave
    (B,), and the cost to stay below.
    """
    (prices, rest, room, most), count = limits, len(options.cost)
    cost = (labels.cost[:, None] + options.cost).ravel()
    weight = (labels.weight[:, None, :] + options.weight).reshape(len(cost), len(room))
    priced = (cost[:, None] + weight @ prices.T + rest).max(axis=1)
    bound = np.maximum(np.repeat(labels.bound, count), priced)
    alive = np.flatnonzero((bound < most) & (weight <= room).all(axis=1))
    if len(room) == 1:
        alive = _undominated(cost, weight[:, 0], alive)
    parent, option = np.divmod(alive, count)
    return _Labels(cost[alive], weight[alive], bound[alive], tree.extend(labels.node[parent], option))


def _undominated(cost: Floats, weight: Floats, alive: Ints) -> Ints:
    """Return those of the labels that cost less than every lighter one."""
    alive = alive[np.lexsort((cost[alive], weight[alive]))]
    lowest = np.minimum.accumulate(cost[alive])
    result: Ints = alive[np.append(True, np.diff(lowest) < 0)[: len(alive)]]
    return result
