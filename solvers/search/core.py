"""The core: the kept part of a problem as flat arrays on three levels, so that a step is a few passes of numpy.

A *unit* is a bundle of tied groups, or one untied group; a *way* is one labelling of the unit's ties; a *cell* is one
group of the unit under that way; an *entry* is a candidate that the cell may take. A choice takes a way in each unit
and an entry in each cell of that way. Numbers count from each group's least value, so that only differences remain.
Shapes: E entries, M cells, W ways, U units, B budgets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Mask, Picks, Problem
from bitplan.solvers.reduction.minima import minima
from bitplan.solvers.reduction.presolve import row_of
from bitplan.solvers.reduction.ties import Bundle, bundles, labellings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Core:
    """The kept part of a problem.

    Attributes:
        candidate: (E,) the flat candidate of each entry.
        cost: (E,) its objective beyond the group's least.
        weight: (E, B) its budget columns beyond the group's least.
        slack: (B,) the limits on the sums of the weights.
        base: the objective that costs count from.
        cells: (M,) the first entry of each cell.
        ways: (W,) the first cell of each way.
        units: (U,) the first way of each unit.
    """

    candidate: Ints
    cost: Floats
    weight: Floats
    slack: Floats
    base: float
    cells: Ints
    ways: Ints
    units: Ints

    @cached_property
    def cell_of(self) -> Ints:
        """(E,) the cell of each entry."""
        return _owners(self.cells, len(self.candidate))

    @cached_property
    def way_of(self) -> Ints:
        """(M,) the way of each cell."""
        return _owners(self.ways, len(self.cells))

    @cached_property
    def unit_of(self) -> Ints:
        """(W,) the unit of each way."""
        return _owners(self.units, len(self.ways))

    @cached_property
    def end_of_cell(self) -> Ints:
        """(M,) the end of each cell's entries."""
        return np.append(self.cells[1:], len(self.candidate))

    @cached_property
    def end_of_way(self) -> Ints:
        """(W,) the end of each way's cells."""
        return np.append(self.ways[1:], len(self.cells))

    @cached_property
    def end_of_unit(self) -> Ints:
        """(U,) the end of each unit's ways."""
        return np.append(self.units[1:], len(self.ways))

    def picks(self, entries: Ints) -> Picks:
        """Return the choice of these entries, one for each group, in the order of the groups."""
        return tuple(sorted(self.candidate[entries].tolist()))


def core_of(problem: Problem, keep: Mask) -> Core | None:
    """Return the kept candidates as a core; None where a unit has no way left. Raises ProblemError as `labellings`."""
    sets = bundles(problem)
    rows = np.concatenate([_simple_rows(problem, sets, keep), *_labelled_rows(problem, sets, keep)])
    rows = rows[np.lexsort(rows.T[::-1])]
    steps = np.diff(rows, axis=0, prepend=-1) != 0
    new_unit, new_way = steps[:, 0], steps[:, 0] | steps[:, 1]
    new_cell = new_way | steps[:, 2]
    cells, ways = np.cumsum(new_cell) - 1, np.cumsum(new_way) - 1
    sizes = np.array([len(bundle.places) for bundle in sets])
    whole = np.bincount(ways[new_cell]) == sizes[rows[new_way, 0]]
    alive = whole[ways] if len(rows) else np.zeros(0, dtype=bool)
    if len(np.unique(rows[alive, 0])) < len(sets):
        return None
    least = minima(problem, problem.costs, keep)[0]
    budgets = [row_of(problem, budget, keep) for budget in problem.budgets]
    candidate = rows[alive, 3]
    cells, ways, units = cells[alive], ways[alive], (np.cumsum(new_unit) - 1)[alive]
    cell_starts = _restart(cells)
    way_starts = _restart(ways[cell_starts])
    return Core(
        candidate,
        (problem.costs - np.repeat(least, np.diff(problem.offsets)))[candidate],
        np.array([row.extra[candidate] for row in budgets]).reshape(len(budgets), len(candidate)).T.copy(),
        np.array([row.slack for row in budgets]),
        math.fsum(least),
        cell_starts, way_starts, _restart(units[cell_starts][way_starts]),
    )  # fmt: skip


def _simple_rows(problem: Problem, sets: tuple[Bundle, ...], keep: Mask) -> Ints:
    """Return (R, 4) rows of bundle, way, group, candidate for the bundles of at most one tie: a way is a label."""
    number_of, way = np.full(len(problem.groups), -1), np.zeros(problem.size, dtype=np.int64)
    for number, bundle in enumerate(sets):
        if len(bundle.ties) <= 1:
            number_of[list(bundle.places)] = number
        if len(bundle.ties) == 1:
            ways: dict[str, int] = {}
            for group, labels in problem.ties[bundle.ties[0]].labels.items():
                start = problem.offsets[problem.positions[group]]
                way[start : start + len(labels)] = [ways.setdefault(label, len(ways)) for label in labels]
    place = np.repeat(np.arange(len(problem.groups)), np.diff(problem.offsets))
    chosen = np.flatnonzero(keep & (number_of[place] >= 0))
    return np.column_stack([number_of[place[chosen]], way[chosen], place[chosen], chosen])


def _labelled_rows(problem: Problem, sets: tuple[Bundle, ...], keep: Mask) -> Iterator[Ints]:
    """Yield the same rows for each bundle of several ties: a way is a labelling of all of them."""
    for number, bundle in enumerate(sets):
        if len(bundle.ties) > 1:
            rows = [
                (number, way, place, candidate)
                for way, cells in enumerate(labellings(problem, bundle, keep))
                for place, cell in zip(bundle.places, cells, strict=True)
                for candidate in cell
            ]
            yield np.array(rows, dtype=np.int64).reshape(-1, 4)


def shrink(core: Core, keep: Mask) -> Core | None:
    """Return the core with the entries of `keep` (E,) only; None where a unit has no way left.

    A way is removed with all its cells when one of its cells is empty.
    """
    whole = np.add.reduceat(keep, core.cells, dtype=np.int64) > 0
    alive = np.logical_and.reduceat(whole, core.ways)
    if not np.logical_or.reduceat(alive, core.units).all():
        return None
    cells = alive[core.way_of]
    entries = keep & cells[core.cell_of]
    return Core(
        core.candidate[entries], core.cost[entries], core.weight[entries], core.slack, core.base,
        _restart(core.cell_of[entries]), _restart(core.way_of[cells]), _restart(core.unit_of[alive]),
    )  # fmt: skip


def _owners(starts: Ints, count: int) -> Ints:
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=count))


def _restart(owners: Ints) -> Ints:
    return np.flatnonzero(np.diff(owners, prepend=-1))
