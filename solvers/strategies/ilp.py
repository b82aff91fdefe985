"""The whole problem, but for what alone fits no budget, handed to PuLP, and again where exact arithmetic says no."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from bitplan.solvers.certify import violations
from bitplan.solvers.problem import Problem
from bitplan.solvers.programs import ilp
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE
from bitplan.solvers.reduction.presolve import affordable
from bitplan.solvers.reduction.relax import minima
from bitplan.solvers.search.path import COARSE, State
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import NOTHING, solution_of
from bitplan.solvers.strategies.base import Effort, met


def run(problem: Problem, effort: Effort) -> Solution:
    """Slow, and the same answer as the exact path's by other means. Raises BackendError."""
    start, backend = time.monotonic(), backend_named(effort.backend)
    keep = affordable(problem, problem.allowed)  # else a row, scaled by its slack, has numbers too large for a backend
    least, most = minima(problem, problem.costs, keep)[0], -minima(problem, -problem.costs, keep)[0]
    base, span = math.fsum(least), math.fsum(most) - math.fsum(least)
    cuts: list[list[int]] = []
    state = State(None, base, "the time limit was reached")
    if not math.isfinite(base):
        state = State(None, math.inf, NOTHING, (), True)
    while not state.infeasible and (left := effort.time_limit - (time.monotonic() - start)) > 0:
        answer = ilp.run(problem, ilp.build(problem, keep, span, cuts), backend, left, effort.gap)
        broken = violations(problem, answer.picks) if answer.picks else ()
        if over := [problem.budgets[rule.place] for rule in broken if rule.kind == "budget"]:
            cuts += [ilp.cover(problem, budget, answer.picks or (), keep) for budget in over]
            continue
        state = _after(problem, state, answer)
        above = math.inf if state.choice is None else state.choice.objective - base
        if not COARSE * above < span:
            break
        span = above  # the optimum is far below the span that the objective was scaled by: once more at its own scale
    return solution_of(state, time.monotonic() - start, backend.name)


def _after(problem: Problem, state: State, answer: ilp.ProgramAnswer) -> State:
    if answer.ended.state == INFEASIBLE and state.choice is None:
        return State(None, math.inf, answer.ended.why, (), True)
    bound = state.bound if answer.ended.state in (FAILED, INFEASIBLE) else max(state.bound, answer.bound)
    return replace(met(problem, state, answer.picks, answer.ended.why), bound=bound)
