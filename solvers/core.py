"""What is left of a problem, as flat arrays on three levels, so that every step is a few passes of numpy.

A *unit* is a bundle of tied groups, or one untied group; a *way* is one labelling of the unit's ties; a *cell* is one
of its groups under that way; an *entry* is a candidate that the cell may take. A choice takes a way in each unit and
an entry in each cell of that way. Numbers count from each group's least value, so that only differences are left.
Shapes: E entries, M cells, W ways, U units, B budgets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.presolve import row_of
from solvers.problem import Mask, Picks, Problem
from solvers.relax import minima
from solvers.ties import bundles, labellings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Core:
    """candidate (E,): flat candidate of each entry; cost (E,), weight (E, B): beyond the group's least; slack (B,):
    what all weights may add up to; base: the objective that cost counts from; cells (M,), ways (W,), units (U,): where
    the entries of each cell, the cells of each way and the ways of each unit begin."""

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
        """(E,): the cell of each entry."""
        return _owners(self.cells, len(self.candidate))

    @cached_property
    def way_of(self) -> Ints:
        """(M,): the way of each cell."""
        return _owners(self.ways, len(self.cells))

    @cached_property
    def unit_of(self) -> Ints:
        """(W,): the unit of each way."""
        return _owners(self.units, len(self.ways))

    @cached_property
    def end_of_cell(self) -> Ints:
        """(M,): where the entries of each cell end."""
        return np.append(self.cells[1:], len(self.candidate))

    @cached_property
    def end_of_way(self) -> Ints:
        """(W,): where the cells of each way end."""
        return np.append(self.ways[1:], len(self.cells))

    @cached_property
    def end_of_unit(self) -> Ints:
        """(U,): where the ways of each unit end."""
        return np.append(self.units[1:], len(self.ways))

    def picks(self, entries: Ints) -> Picks:
        """The choice that takes these entries, one a group, in the order of the groups."""
        return tuple(sorted(self.candidate[entries].tolist()))


def core_of(problem: Problem, keep: Mask) -> Core | None:
    """The kept candidates as a core; None where some unit has no way left. Raises ProblemError for tangled ties."""
    units: list[list[list[list[int]]]] = []
    for bundle in bundles(problem):
        if bundle.ties:
            found = [[cell.tolist() for cell in way] for way in labellings(problem, bundle, keep)]
        else:
            found = [[[c for c in problem.members(place) if keep[c]] for place in bundle.places]]
        if not found or not all(map(len, found[0])):
            return None
        units.append(found)
    ways = [way for unit in units for way in unit]
    cells = [cell for way in ways for cell in way]
    candidate = np.array([c for cell in cells for c in cell], dtype=np.int64)
    least = minima(problem, problem.costs, keep)[0]
    rows = [row_of(problem, budget, keep) for budget in problem.budgets]
    return Core(
        candidate,
        (problem.costs - np.repeat(least, np.diff(problem.offsets)))[candidate],
        np.array([row.extra[candidate] for row in rows]).reshape(len(rows), len(candidate)).T.copy(),
        np.array([row.slack for row in rows]),
        math.fsum(least),
        _starts(cells), _starts(ways), _starts(units),
    )  # fmt: skip


def shrink(core: Core, keep: Mask) -> Core | None:
    """The core with only the entries of `keep` (E,); a way that loses a cell goes; None where a unit loses all."""
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


def _starts(lists: list[list[int]] | list[list[list[int]]] | list[list[list[list[int]]]]) -> Ints:
    return np.cumsum([0, *map(len, lists)][:-1], dtype=np.int64)


def _restart(owners: Ints) -> Ints:
    return np.flatnonzero(np.diff(owners, prepend=-1))
