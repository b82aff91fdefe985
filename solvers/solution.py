"""What is answered: a status, a choice where there is one, and how good it is proven to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from bitplan.solvers.problem import Picks, Problem, ProblemError, nearest


def uniform(problem: Problem, label: str, fallback: Sequence[str] = ()) -> Choice:
    """Every group takes the candidate named `label`, or the first of `fallback` that it has and may take.

    Looks at no budget and no tie; `certify.violations` tells what it breaks. Raises ProblemError where a group has
    none of the names.
    """
    picks = tuple(_named(problem, place, (label, *fallback)) for place in range(len(problem.groups)))
    return choice_of(problem, picks)


def _named(problem: Problem, place: int, names: tuple[str, ...]) -> int:
    members = problem.members(place)
    allowed = {n: c for n, c in zip(problem.candidates[place], members, strict=True) if problem.allowed[c]}
    for name in names:
        if name in allowed:
            return allowed[name]
    wanted = " or ".join(repr(name) for name in names)
    advice = nearest(names[0], allowed) or "; it may take nothing"
    raise ProblemError(f"group {problem.groups[place]!r} may not take {wanted}{advice} (or name a fallback)")


PROVEN = 1e-9  # relative gap below which bound and objective are the same number to a floating-point solver


class NoSolutionError(ValueError):
    """A value was read that the solution does not have."""


class Status(Enum):
    """How a solve ended; each value is the sentence for the user, `str` gives the word for files."""

    OPTIMAL = "no choice within the budgets is better, to one part in 10^9"
    FEASIBLE = "the choice is within the budgets; a better one may exist, by no more than the gap"
    INFEASIBLE = "no choice is within the budgets"
    INTERRUPTED = "stopped before any choice within the budgets was found; there may be one"

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Choice:
    """One candidate per group. names: group -> candidate; totals: column -> sum, exact for integer columns."""

    picks: Picks
    names: Mapping[str, str]
    objective: float
    totals: Mapping[str, int | float]


@dataclass(frozen=True)
class Solution:
    """The answer. bound: no choice has a smaller objective (-inf: nothing proven, inf: infeasible); stopped: why the
    solver ended, one sentence; seconds: wall time; prices: what one unit of each budget is worth in the relaxation, in
    units of the objective, `certify.lower_bound` makes a bound of them in exact arithmetic; () where none was needed.
    Values of an absent choice raise NoSolutionError."""

    status: Status
    choice: Choice | None
    bound: float
    stopped: str
    seconds: float
    backend: str
    prices: tuple[float, ...] = ()

    @property
    def chosen(self) -> Mapping[str, str]:
        """Group -> name of its chosen candidate."""
        return self._choice().names

    @property
    def picks(self) -> Picks:
        """The flat index of each group's chosen candidate."""
        return self._choice().picks

    @property
    def objective(self) -> float:
        """The objective of the choice."""
        return self._choice().objective

    @property
    def totals(self) -> Mapping[str, int | float]:
        """Column -> sum over the choice."""
        return self._choice().totals

    @property
    def gap(self) -> float:
        """How much of the objective a better choice could save: 0 is proven optimal, inf is nothing known."""
        return math.inf if self.choice is None else relative_gap(self.choice.objective, self.bound)

    def _choice(self) -> Choice:
        if self.choice is None:
            raise NoSolutionError(f"there is no choice to read: {self.status.value} ({self.stopped})")
        return self.choice


def choice_of(problem: Problem, picks: Picks) -> Choice:
    """The named choice and its sums for one flat index per group."""
    places = np.asarray(picks, dtype=np.int64) - problem.offsets[:-1]
    names = {group: problem.candidates[i][places[i]] for i, group in enumerate(problem.groups)}
    totals = {name: _total(values[list(picks)].tolist()) for name, values in problem.columns.items()}
    return Choice(tuple(int(pick) for pick in picks), names, math.fsum(problem.costs[list(picks)]), totals)


def relative_gap(objective: float, bound: float) -> float:
    """(objective - bound) / objective, never negative; objective >= 0."""
    if bound >= objective:
        return 0.0
    return (objective - bound) / objective if objective > 0 else math.inf


def _total(values: list[int] | list[float]) -> int | float:
    return sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)
