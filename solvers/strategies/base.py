"""What every strategy is, and how those without a proof begin and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Picks, Problem
from bitplan.solvers.reduction.presolve import affordable
from bitplan.solvers.search.core import Core, core_of
from bitplan.solvers.search.path import SearchState, better, infeasible
from bitplan.solvers.solution import Solution, choice_of
from bitplan.solvers.solve import NO_CANDIDATE, separate_minima


@dataclass(frozen=True)
class Strategy:
    """One way to solve a problem.

    Attributes:
        name: the value of `--solver`.
        about: what it is good for.
        run: solves a problem within an effort.
    """

    name: str
    about: str
    run: Callable[[Problem, Effort], Solution]


def begin(problem: Problem) -> tuple[Core | None, SearchState]:
    """Return the core, None where a group has no candidate left, and what is known without a search."""
    core = core_of(problem, affordable(problem, problem.allowed))
    return core, infeasible(NO_CANDIDATE) if core is None else separate_minima(problem, core)


def accept(problem: Problem, state: SearchState, picks: Picks | None, reason: str) -> SearchState:
    """Return the state with this choice, if it is certified and better; None stands for no choice."""
    if picks is None or violations(problem, picks):
        return replace(state, stopped=f"{reason}: no choice within the budgets was found")
    return replace(state, choice=better(state.choice, choice_of(problem, picks)), stopped=reason)
