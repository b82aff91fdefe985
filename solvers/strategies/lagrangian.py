"""The bound of the best prices, and the minimiser of the relaxation after repair."""

from __future__ import annotations

import time
from dataclasses import replace

from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.search.dual import ascend
from bitplan.solvers.search.repair import repair
from bitplan.solvers.search.units import enlarged, restored
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solution_of
from bitplan.solvers.strategies.base import accept, begin


def run(problem: Problem, effort: Effort) -> Solution:
    """Solve by the relaxation alone; it is fast, so the effort is ignored."""
    enlarged_problem, units = enlarged(problem)
    return restored(problem, _run(enlarged_problem), units)


def _run(problem: Problem) -> Solution:
    start = time.monotonic()
    core, state = begin(problem)
    if core is not None and not state.infeasible and state.choice is None:
        best = ascend(core)[-1]
        entries = repair(core, best)
        state = accept(problem, state, None if entries is None else core.picks(entries), "repaired")
        bound = max(state.bound, core.base + best.value)
        state = replace(state, bound=bound, prices=tuple(best.prices.tolist()))
    return solution_of(state, time.monotonic() - start, "lagrangian")
