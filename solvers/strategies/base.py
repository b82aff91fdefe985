"""What every way to a solution takes, and how those that are no proof begin and end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from bitplan.solvers.certify import violations
from bitplan.solvers.problem import Picks, Problem, ProblemError
from bitplan.solvers.reduction.presolve import affordable
from bitplan.solvers.search.core import Core, core_of
from bitplan.solvers.search.path import State, better
from bitplan.solvers.solution import Solution, choice_of
from bitplan.solvers.solve import NOTHING, floor


@dataclass(frozen=True)
class Effort:
    """time_limit: seconds; gap: the share of the objective that may be left unproven; backend: of PuLP, None for the
    first that runs here. Raises ProblemError."""

    time_limit: float = 60.0
    gap: float = 0.0
    backend: str | None = None

    def __post_init__(self) -> None:
        if not self.time_limit > 0 or not 0 <= self.gap < 1:
            asked = f"the time limit is {self.time_limit:g} and the gap is {self.gap:g}"
            raise ProblemError(f"{asked}; expected seconds > 0 and a share in [0, 1)")


@dataclass(frozen=True)
class Strategy:
    """One way: its name, what it is good for, and what follows it."""

    name: str
    about: str
    run: Callable[[Problem, Effort], Solution]


def begin(problem: Problem) -> tuple[Core | None, State]:
    """The core, and what is known without a search."""
    core = core_of(problem, affordable(problem, problem.allowed))
    return core, State(None, math.inf, NOTHING, (), True) if core is None else floor(problem, core)


def met(problem: Problem, state: State, picks: Picks | None, why: str) -> State:
    """The state with that choice, where it is one, passes the certificate, and is better."""
    if picks is None or violations(problem, picks):
        return replace(state, stopped=f"{why}: no choice within the budgets was found")
    return replace(state, choice=better(state.choice, choice_of(problem, picks)), stopped=why)
