"""From a problem to a certified solution.

    drop what fits no budget -> core -> exact floor of every budget -> exact path -> certificate

What is returned has passed `certify` in every case.
"""

from __future__ import annotations

import math
import time
from fractions import Fraction

from bitplan.solvers.certify import exact_total, violations
from bitplan.solvers.problem import Problem, ProblemError
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.reduction.presolve import SLIVER, affordable
from bitplan.solvers.search.core import Core, core_of
from bitplan.solvers.search.lagrangian import lightest
from bitplan.solvers.search.path import SearchLimits, State, exact
from bitplan.solvers.solution import PROVEN, Solution, Status, choice_of, relative_gap

NOTHING = "some group has no candidate left that fits its ties and the budgets"


def solve(problem: Problem, *, time_limit: float = 60.0, gap: float = 0.0, backend: str | None = None) -> Solution:
    """The best choice within all budgets and ties, or the proof that there is none, or what a limit left.

    time_limit: seconds of wall time for all of it (a backend may run a little over); gap: stop once no choice can save
    more than this share of the objective; backend: a name of `backends.BACKENDS`, None for the first that runs here.
    Raises ProblemError and BackendError.
    """
    if not time_limit > 0 or not 0 <= gap < 1:
        raise ProblemError(f"time_limit is {time_limit} and gap {gap}; expected seconds > 0 and a share in [0, 1)")
    limits, start = SearchLimits(time.monotonic() + time_limit, gap, backend_named(backend)), time.monotonic()
    keep = affordable(problem, problem.allowed)
    core = core_of(problem, keep)
    state = State(None, math.inf, NOTHING, (), True) if core is None else floor(problem, core)
    if core is not None and not state.infeasible and not state.good(gap):
        state = exact(problem, core, state, limits)
    return solution_of(state, time.monotonic() - start, limits.backend.name)


def floor(problem: Problem, core: Core) -> State:
    """What needs no search: the least objective and the least sum of every budget, each alone."""
    for budget, weight in zip(problem.budgets, core.weight.T, strict=True):
        least = exact_total(problem, budget.column, core.picks(lightest(core, weight)))
        if least > Fraction(budget.limit) * (1 + SLIVER):
            return State(None, math.inf, f"the least sum of {budget.column} is above its budget", (), True)
    free = core.picks(lightest(core, core.cost))
    choice, prices = choice_of(problem, free), (0.0,) * len(problem.budgets)
    if not violations(problem, free):
        return State(choice, choice.objective, "the least objective is within every budget", prices)
    return State(None, choice.objective, "nothing was searched", prices)


def solution_of(state: State, seconds: float, backend: str) -> Solution:
    """The state as an answer."""
    if state.infeasible:
        return Solution(Status.INFEASIBLE, None, math.inf, state.stopped, seconds, backend)
    if state.choice is None:
        return Solution(Status.INTERRUPTED, None, state.bound, state.stopped, seconds, backend, state.prices)
    bound = min(state.bound, state.choice.objective)
    proven = relative_gap(state.choice.objective, bound) <= PROVEN
    status = Status.OPTIMAL if proven else Status.FEASIBLE
    return Solution(status, state.choice, bound, state.stopped, seconds, backend, state.prices)
