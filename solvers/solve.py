"""Solve a problem by the exact path.

    larger units -> drop candidates that exceed a budget alone -> core -> separate minima -> exact path -> certificate

Every choice that is returned has passed `certify`.
"""

from __future__ import annotations

import math
import time
from fractions import Fraction

from bitplan.solvers.certify import exact_total, violations
from bitplan.solvers.effort import DEFAULT, Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.reduction.presolve import SLIVER, affordable
from bitplan.solvers.search.core import Core, core_of
from bitplan.solvers.search.path import SearchLimits, SearchState, infeasible, run_exact
from bitplan.solvers.search.relaxation import lightest
from bitplan.solvers.search.units import enlarged, restored
from bitplan.solvers.solution import PROVEN, Solution, Status, choice_of, relative_gap

NO_CANDIDATE = "some group has no candidate left that fits its ties and the budgets"


def solve(problem: Problem, effort: Effort = DEFAULT) -> Solution:
    """Return the best choice within all budgets and ties, the proof that there is none, or the best within the effort.

    Raises ProblemError and BackendError.
    """
    enlarged_problem, units = enlarged(problem)
    return restored(problem, _solve(enlarged_problem, effort), units)


def _solve(problem: Problem, effort: Effort) -> Solution:
    start = time.monotonic()
    limits = SearchLimits(effort.deadline(), effort.gap, backend_named(effort.backend))
    keep = affordable(problem, problem.allowed)
    core = core_of(problem, keep)
    state = infeasible(NO_CANDIDATE) if core is None else separate_minima(problem, core)
    if core is not None and not state.infeasible and not state.within(limits.gap):
        state = run_exact(problem, core, state, limits)
    return solution_of(state, time.monotonic() - start, limits.backend.name)


def separate_minima(problem: Problem, core: Core) -> SearchState:
    """Minimise the objective, and each budget's sum, without the other budgets: this needs no search."""
    for budget, weight in zip(problem.budgets, core.weight.T, strict=True):
        least = exact_total(problem, budget.column, core.picks(lightest(core, weight)))
        if least > Fraction(budget.limit) * (1 + SLIVER):
            return infeasible(f"the least sum of {budget.column} is above its budget")
    picks = core.picks(lightest(core, core.cost))
    choice, prices = choice_of(problem, picks), (0.0,) * len(problem.budgets)
    if not violations(problem, picks):
        return SearchState(choice, choice.objective, "the least objective is within every budget", prices)
    return SearchState(None, choice.objective, "nothing was searched", prices)


def solution_of(state: SearchState, seconds: float, backend: str) -> Solution:
    """Return the solution for a state of the search."""
    if state.infeasible:
        return Solution(Status.INFEASIBLE, None, math.inf, state.stopped, seconds, backend)
    if state.choice is None:
        return Solution(Status.INTERRUPTED, None, state.bound, state.stopped, seconds, backend, state.prices)
    bound = min(state.bound, state.choice.objective)
    proven = relative_gap(state.choice.objective, bound) <= PROVEN
    status = Status.OPTIMAL if proven else Status.FEASIBLE
    return Solution(status, state.choice, bound, state.stopped, seconds, backend, state.prices)
