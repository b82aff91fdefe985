"""The whole problem as one integer program for PuLP, solved again while an answer fails in exact arithmetic.

Only candidates that exceed a budget alone are removed.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.programs import program
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE
from bitplan.solvers.reduction.minima import minima
from bitplan.solvers.reduction.presolve import affordable
from bitplan.solvers.search.path import COARSE, SearchState, infeasible
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import NO_CANDIDATE, solution_of
from bitplan.solvers.strategies.base import accept


def run(problem: Problem, effort: Effort) -> Solution:
    """Solve by other means than the exact path: slower, with the same answer. Raises BackendError."""
    start, deadline, backend = time.monotonic(), effort.deadline(), backend_named(effort.backend)
    keep = affordable(problem, problem.allowed)  # else a scaled row has numbers that are too large for a backend
    least, most = minima(problem, problem.costs, keep)[0], -minima(problem, -problem.costs, keep)[0]
    base, span = math.fsum(least), math.fsum(most) - math.fsum(least)
    cuts: list[list[int]] = []
    state = SearchState(None, base, deadline.reason())
    if not math.isfinite(base):
        state = infeasible(NO_CANDIDATE)
    while not state.infeasible and deadline.left() > 0:
        answer = program.run(problem, program.build(problem, keep, span, cuts), backend, deadline, effort.gap)
        broken = violations(problem, answer.picks) if answer.picks else ()
        if exceeded := [problem.budgets[rule.place] for rule in broken if rule.kind == "budget"]:
            cuts += [program.cover(problem, budget, answer.picks or (), keep) for budget in exceeded]
            continue
        state = _after(problem, state, answer)
        above_base = math.inf if state.choice is None else state.choice.objective - base
        if not COARSE * above_base < span:
            break
        span = above_base  # the optimum is far below the span that set the scale: solve once more at its own scale
    return solution_of(state, time.monotonic() - start, backend.name)


def _after(problem: Problem, state: SearchState, answer: program.ProgramAnswer) -> SearchState:
    result = answer.result
    if result.state == INFEASIBLE and state.choice is None:
        return infeasible(result.reason)
    bound = state.bound if result.state in (FAILED, INFEASIBLE) else max(state.bound, answer.bound)
    return replace(accept(problem, state, answer.picks, result.reason), bound=bound)
