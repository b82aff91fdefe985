"""The problem: choose one candidate in every group, minimise the objective, respect every budget and tie."""

from __future__ import annotations

import copy
import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Number = int | float | Fraction
Column = NDArray[np.int64] | NDArray[np.float64]
Mask = NDArray[np.bool_]
MOST = 2**53  # the largest sum of an integer column: 64-bit floats and the backends hold every integer up to it
SMALLEST = sys.float_info.min
_LISTED = 12  # names that an error lists
LARGEST = 2.0**500  # the largest sum of a column of floats: products of two of them are still finite
Picks = tuple[int, ...]  # a choice: one flat candidate index for each group, in the order of the groups


class ProblemError(ValueError):
    """The problem is not valid, or a name is not part of it."""


@dataclass(frozen=True)
class Budget:
    """A limit on the sum of a column over the chosen candidates; the comparison is exact."""

    column: str
    limit: Number

    def __post_init__(self) -> None:
        try:
            finite = math.isfinite(self.limit)
        except OverflowError:  # an integer or a fraction above all floats
            finite = False
        if not finite:
            shown = self.limit if isinstance(self.limit, float) else "beyond all 64-bit floats"
            raise ProblemError(f"the budget on {self.column!r} is {shown}; give a finite number")


@dataclass(frozen=True)
class Tie:
    """A constraint: the groups must choose candidates with the same label.

    Attributes:
        labels: group -> one label for each of its candidates.
    """

    labels: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Problem:
    """Groups of named candidates with additive columns.

    Flat arrays hold all candidates of the first group, then of the second and so on, C in all. Raises ProblemError for
    values that do not fit together.

    Attributes:
        groups: N names.
        candidates: for each group, the names of its candidates.
        columns: name -> (C,) numbers >= 0; integers stay integers, and no choice may sum to more than `MOST` of them.
        objective: column -> weight >= 0.
        budgets: limits on the sums of columns.
        ties: constraints on labels.
        allowed: (C,) booleans; None allows all.
    """

    groups: tuple[str, ...]
    candidates: tuple[tuple[str, ...], ...]
    columns: Mapping[str, Column]
    objective: Mapping[str, float]
    budgets: tuple[Budget, ...] = ()
    ties: tuple[Tie, ...] = ()
    allowed: Mask = field(default=None)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        def store(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        store("groups", tuple(self.groups))
        store("candidates", tuple(tuple(names) for names in self.candidates))
        _check_groups(self.groups, self.candidates)
        store("columns", {name: _column(name, values, self.size) for name, values in self.columns.items()})
        store("objective", dict(self.objective))
        store("budgets", tuple(self.budgets))
        store("ties", tuple(self.ties))
        store("allowed", _mask(self.allowed, self.size))
        _check_sums(self)
        _check_objective(self)
        for budget in self.budgets:
            self.column(budget.column)
        for tie in self.ties:
            _check_tie(self, tie)

    @property
    def size(self) -> int:
        """C, the total number of candidates."""
        return int(self.offsets[-1])

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(N + 1,) the candidates of group i are `offsets[i]` to `offsets[i + 1] - 1`."""
        return np.cumsum([0, *(len(names) for names in self.candidates)], dtype=np.int64)

    @cached_property
    def grid(self) -> NDArray[np.int64]:
        """(N, K) the flat candidate indices of each group, padded with -1 to the size K of the largest group."""
        widths = np.diff(self.offsets)
        places = np.arange(widths.max())
        return np.where(places < widths[:, None], self.offsets[:-1, None] + places, -1)

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """(C,) the objective of each candidate."""
        parts = [weight * self.columns[name].astype(np.float64) for name, weight in self.objective.items()]
        return np.sum(parts, axis=0) if parts else np.zeros(self.size)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Group name -> its place in `groups`."""
        return {name: place for place, name in enumerate(self.groups)}

    def column(self, name: str) -> Column:
        """Return the column of that name. Raises ProblemError with the nearest name."""
        if name not in self.columns:
            raise ProblemError(f"no column is named {name!r}{nearest(name, self.columns)}")
        return self.columns[name]

    def index(self, group: str, candidate: str) -> int:
        """Return the flat index of one candidate. Raises ProblemError with the nearest name."""
        if group not in self.positions:
            raise ProblemError(f"no group is named {group!r}{nearest(group, self.groups)}")
        names = self.candidates[self.positions[group]]
        if candidate not in names:
            raise ProblemError(f"group {group!r} has no candidate {candidate!r}{nearest(candidate, names)}")
        return int(self.offsets[self.positions[group]]) + names.index(candidate)

    def members(self, group: int) -> range:
        """Return the flat indices of the candidates of the group at that place."""
        return range(int(self.offsets[group]), int(self.offsets[group + 1]))


def pin(problem: Problem, choices: Mapping[str, str]) -> Problem:
    """Return the problem with one allowed candidate in each named group. Raises ProblemError for unknown names."""
    allowed = problem.allowed.copy()
    for group, candidate in choices.items():
        chosen = problem.index(group, candidate)
        allowed[problem.members(problem.positions[group])] = False
        allowed[chosen] = True
    return replace(problem, allowed=allowed)


def rebudget(problem: Problem, budgets: Sequence[Budget]) -> Problem:
    """Return the problem with other budgets; it shares all cached arrays. Raises ProblemError for unknown columns."""
    for budget in budgets:
        problem.column(budget.column)
    other = copy.copy(problem)
    object.__setattr__(other, "budgets", tuple(budgets))
    return other


def nearest(name: str, names: Sequence[str] | Mapping[str, object]) -> str:
    """Return `; did you mean 'x'?`, or some of the names where none is near, or an empty text where there are none."""
    if near := difflib.get_close_matches(name, list(names), 1):
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(list(names)[:_LISTED])}" if names else ""


def plain(number: Number) -> int | float:
    """Return the number as YAML can hold it: integers unchanged, fractions rounded up to a float."""
    if isinstance(number, (int, float)):
        return number
    if number.denominator == 1:
        return number.numerator
    rounded = float(number)
    return rounded if Fraction(rounded) >= number else math.nextafter(rounded, math.inf)


def _check_groups(groups: tuple[str, ...], candidates: tuple[tuple[str, ...], ...]) -> None:
    if not groups:
        raise ProblemError("there are no groups; give at least one")
    if len(groups) != len(candidates):
        raise ProblemError(f"{len(groups)} groups but candidates of {len(candidates)}; give one list per group")
    if len(set(groups)) < len(groups):
        repeated = next(name for name in groups if groups.count(name) > 1)
        raise ProblemError(f"group {repeated!r} is listed twice; names must differ")
    for group, names in zip(groups, candidates, strict=True):
        if not names:
            raise ProblemError(f"group {group!r} has no candidates; give at least one")
        if len(set(names)) < len(names):
            raise ProblemError(f"group {group!r} lists a candidate twice; names must differ")


def _column(name: str, values: object, size: int) -> Column:
    array = np.array(values)
    if array.shape != (size,):
        raise ProblemError(f"column {name!r} has shape {array.shape}; expected ({size},), one number per candidate")
    numbers = array.tolist() if isinstance(values, np.ndarray) else list(values)  # type: ignore[call-overload]
    if array.dtype.kind in "ufO" and all(type(n) is int for n in numbers) and max(map(abs, numbers)) > MOST:
        raise ProblemError(f"column {name!r} holds {max(numbers, key=abs)}, beyond 2^53 = {MOST}; use a larger unit")
    if array.dtype.kind not in "iuf":
        raise ProblemError(f"column {name!r} holds {array.dtype}; expected integers or floats")
    column: Column = array.astype(np.float64) if array.dtype.kind == "f" else array.astype(np.int64)
    wrong = ~(np.isfinite(column) & (column >= 0))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ProblemError(f"column {name!r} is {column[place]} at candidate {place}; expected finite numbers >= 0")
    column.flags.writeable = False
    return column


def _mask(allowed: object, size: int) -> Mask:
    mask = np.ones(size, dtype=bool) if allowed is None else np.array(allowed)
    if mask.shape != (size,) or mask.dtype != bool:
        raise ProblemError(f"allowed is {mask.dtype} of shape {mask.shape}; expected booleans of shape ({size},)")
    mask.flags.writeable = False
    return mask


def _check_sums(problem: Problem) -> None:
    """Raise ProblemError for a column whose largest sum is rounded or overflows."""
    for name, values in problem.columns.items():
        largest = np.where(problem.grid >= 0, values[problem.grid], 0).max(axis=1).tolist()
        total = sum(largest)
        if values.dtype.kind == "i" and total > MOST:
            raise ProblemError(f"column {name!r} sums to as much as {total}, above 2^53 = {MOST}; use a larger unit")
        if not total <= LARGEST:
            raise ProblemError(f"column {name!r} overflows: it sums to as much as {total:.3g}; use a larger unit")


def _check_objective(problem: Problem) -> None:
    for name, weight in problem.objective.items():
        problem.column(name)
        if not (math.isfinite(weight) and weight >= 0):
            raise ProblemError(f"the objective weighs {name!r} by {weight}; expected a finite number >= 0")
    with np.errstate(over="ignore"):
        total = float(problem.costs[problem.grid].max(axis=1).sum())
    if total < SMALLEST:
        _check_exact(problem)
    if not total <= LARGEST:
        raise ProblemError(f"the objective overflows: it sums to as much as {total:.3g}; use smaller weights")


def _check_exact(problem: Problem) -> None:
    """Raise ProblemError for a weight whose products with its column are below the normal floats and are rounded."""
    for name, weight in problem.objective.items():
        values = np.unique(problem.columns[name]).tolist()
        if any(Fraction(weight) * Fraction(value) != Fraction(weight * value) for value in values):
            raise ProblemError(f"the weight {weight:g} of {name!r} is too small: its products with the column, up to "
                               f"{values[-1]:.3g}, are rounded; use a larger weight")  # fmt: skip


def _check_tie(problem: Problem, tie: Tie) -> None:
    for group, labels in tie.labels.items():
        if group not in problem.positions:
            raise ProblemError(f"a tie names an unknown group {group!r}{nearest(group, problem.groups)}")
        size = len(problem.candidates[problem.positions[group]])
        if len(labels) != size:
            raise ProblemError(f"a tie gives {len(labels)} labels to group {group!r}, which has {size} candidates")
