"""The solution: a status, a choice if there is one, and a bound that says how good it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from bitplan.solvers.problem import Picks, Problem, ProblemError, nearest

PROVEN = 1e-9  # relative gap below which a floating-point solver cannot tell bound and objective apart


class NoSolutionError(ValueError):
    """The solution has no choice, so the value cannot be read."""


class Status(Enum):
    """How a solve ended; each value is a sentence for the user, `str` gives the word used in files."""

    OPTIMAL = "no choice within the budgets is better by more than one part in 10^9"
    FEASIBLE = "the choice is within the budgets; a better one may exist, by no more than the gap"
    INFEASIBLE = "no choice is within the budgets"
    INTERRUPTED = "stopped before any choice within the budgets was found; one may exist"

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Choice:
    """One candidate for each group.

    Attributes:
        picks: the flat candidate index of each group.
        names: group -> candidate.
        objective: the weighted sum.
        totals: column -> sum, exact for integer columns.
    """

    picks: Picks
    names: Mapping[str, str]
    objective: float
    totals: Mapping[str, int | float]


@dataclass(frozen=True)
class Solution:
    """The result of a solve. Properties of a missing choice raise NoSolutionError.

    Attributes:
        status: how the solve ended.
        choice: the best certified choice; None where none was found.
        bound: no choice has a smaller objective; -inf: nothing is proven, inf: infeasible.
        stopped: why the solver ended, one phrase.
        seconds: wall time.
        backend: the backend, or the strategy that needs none.
        prices: the dual price of each budget, in objective per unit; () where none was needed. `certify.lower_bound`
            turns them into a bound in exact arithmetic.
    """

    status: Status
    choice: Choice | None
    bound: float
    stopped: str
    seconds: float
    backend: str
    prices: tuple[float, ...] = ()

    @property
    def chosen(self) -> Mapping[str, str]:
        """Group -> the name of its chosen candidate."""
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
        """The share of the objective that a better choice could save: 0 is proven optimal, inf is unknown."""
        return math.inf if self.choice is None else relative_gap(self.choice.objective, self.bound)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON; those of a missing choice are None."""
        found = self.choice
        return {
            "status": str(self.status), "objective": found and found.objective, "bound": self.bound, "gap": self.gap,
            "stopped": self.stopped, "seconds": self.seconds, "backend": self.backend, "prices": list(self.prices),
            "chosen": found and dict(found.names), "totals": found and dict(found.totals),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.choice is None:
            return f"{self.status}: {self.stopped} ({self.backend}, {self.seconds:.3g} s)"
        value = f"objective {self.objective:.6g}, gap {self.gap:.3g}"
        return f"{self.status}: {value} ({self.stopped}; {self.backend}, {self.seconds:.3g} s)"

    def _choice(self) -> Choice:
        if self.choice is None:
            raise NoSolutionError(f"the solution has no choice: {self.status.value} ({self.stopped})")
        return self.choice


def choice_of(problem: Problem, picks: Picks) -> Choice:
    """Return the choice with these flat indices, one for each group, with names and sums."""
    places = np.asarray(picks, dtype=np.int64) - problem.offsets[:-1]
    names = {group: problem.candidates[i][places[i]] for i, group in enumerate(problem.groups)}
    totals = {name: _total(values[list(picks)].tolist()) for name, values in problem.columns.items()}
    return Choice(tuple(int(pick) for pick in picks), names, math.fsum(problem.costs[list(picks)]), totals)


def uniform(problem: Problem, label: str, fallback: Sequence[str] = ()) -> Choice:
    """Return the choice in which every group takes the candidate `label`, or else the first allowed one of `fallback`.

    Budgets and ties are ignored; `certify.violations` lists those that the choice breaks. Raises ProblemError where a
    group may take none of the names.
    """
    picks = tuple(_first_allowed(problem, place, (label, *fallback)) for place in range(len(problem.groups)))
    return choice_of(problem, picks)


def _first_allowed(problem: Problem, place: int, names: tuple[str, ...]) -> int:
    members = problem.members(place)
    allowed = {n: c for n, c in zip(problem.candidates[place], members, strict=True) if problem.allowed[c]}
    for name in names:
        if name in allowed:
            return allowed[name]
    wanted = " or ".join(repr(name) for name in names)
    advice = nearest(names[0], allowed) or "; it may take nothing"
    raise ProblemError(f"group {problem.groups[place]!r} may not take {wanted}{advice} (or name a fallback)")


def relative_gap(objective: float, bound: float) -> float:
    """Return (objective - bound) / objective, at least 0, for an objective >= 0."""
    if bound >= objective:
        return 0.0
    return (objective - bound) / objective if objective > 0 else math.inf


def _total(values: list[int] | list[float]) -> int | float:
    return sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)
