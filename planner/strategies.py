"""The ways to a solution that `--solver` chooses from, as one ordered table. Imports no torch.

Every one certifies its choice in exact arithmetic and says what bound it has on all others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.errors import UserError
from solvers import ilp
from solvers.backends import backend_named
from solvers.backends.base import FAILED, INFEASIBLE
from solvers.certify import violations
from solvers.core import Core, core_of
from solvers.dual import ascend
from solvers.exact import COARSE, State
from solvers.greedy import greedy
from solvers.presolve import affordable
from solvers.problem import Picks, Problem
from solvers.relax import minima
from solvers.repair import repair
from solvers.solution import Solution, choice_of
from solvers.solve import NOTHING, floor, solution_of, solve


@dataclass(frozen=True)
class Effort:
    """time_limit: seconds; gap: the share of the objective that may be left unproven; backend: of PuLP, None for the
    first that runs here. Raises UserError."""

    time_limit: float = 60.0
    gap: float = 0.0
    backend: str | None = None

    def __post_init__(self) -> None:
        if not self.time_limit > 0 or not 0 <= self.gap < 1:
            asked = f"--time-limit {self.time_limit:g}, --gap {self.gap:g}"
            raise UserError(f"{asked}: expected seconds > 0 and a share in [0, 1)")


@dataclass(frozen=True)
class Strategy:
    """One way: its name, what it is good for, and what follows it."""

    name: str
    about: str
    run: Callable[[Problem, Effort], Solution]


def by_exact(problem: Problem, effort: Effort) -> Solution:
    """`solvers.solve`."""
    return solve(problem, time_limit=effort.time_limit, gap=effort.gap, backend=effort.backend)


def by_program(problem: Problem, effort: Effort) -> Solution:
    """The whole problem handed to PuLP as it is, again with a cut where an answer breaks a budget exactly."""
    start, backend = time.monotonic(), backend_named(effort.backend)
    keep = problem.allowed
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


def by_prices(problem: Problem, effort: Effort) -> Solution:
    """The bound of the best prices, and the choice that they lead to once repaired."""
    start = time.monotonic()
    core, state = _begin(problem)
    if core is not None and not state.infeasible and state.choice is None:
        best = ascend(core)[-1]
        entries = repair(core, best)
        state = _with(problem, state, None if entries is None else core.picks(entries), "repaired")
        bound = max(state.bound, core.base + best.value)
        state = replace(state, bound=bound, prices=tuple(best.prices.tolist()))
    return solution_of(state, time.monotonic() - start, "lagrangian")


def by_greed(problem: Problem, effort: Effort) -> Solution:
    """Step by step, the most budget for the least loss."""
    start = time.monotonic()
    core, state = _begin(problem)
    if core is not None and not state.infeasible and state.choice is None:
        found = greedy(problem)
        state = _with(problem, state, found.picks if found else None, "greedy")
    return solution_of(state, time.monotonic() - start, "greedy")


STRATEGIES = (
    Strategy("exact", "prices, repair, fixing, labels, and PuLP for what is left: proven", by_exact),
    Strategy("ilp", "the whole problem as one integer program for PuLP: proven, slow", by_program),
    Strategy("lagrangian", "the relaxation's prices and a repaired choice: a bound, no proof", by_prices),
    Strategy("greedy", "the most budget for the least loss, step by step: no proof", by_greed),
)


def strategy_named(name: str) -> Strategy:
    """The strategy of that name. Raises UserError."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise UserError(f"there is no solver {name!r}; choose from {', '.join(s.name for s in STRATEGIES)}")


def _begin(problem: Problem) -> tuple[Core | None, State]:
    """The core, and what is known without a search."""
    core = core_of(problem, affordable(problem, problem.allowed))
    return core, State(None, math.inf, NOTHING, (), True) if core is None else floor(problem, core)


def _after(problem: Problem, state: State, answer: ilp.Answer) -> State:
    if answer.ended.state == INFEASIBLE and state.choice is None:
        return State(None, math.inf, answer.ended.why, (), True)
    bound = state.bound if answer.ended.state in (FAILED, INFEASIBLE) else max(state.bound, answer.bound)
    return replace(_with(problem, state, answer.picks, answer.ended.why), bound=bound)


def _with(problem: Problem, state: State, picks: Picks | None, why: str) -> State:
    """The state with that choice, where it is one, passes the certificate, and is better."""
    if picks is None or violations(problem, picks):
        return replace(state, stopped=f"{why}: no choice within the budgets was found")
    choice = choice_of(problem, picks)
    better = state.choice is None or choice.objective < state.choice.objective
    return replace(state, choice=choice if better else state.choice, stopped=why)
