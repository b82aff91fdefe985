"""From a problem to a certified solution.

    drop what no best choice needs -> exact floor of every budget -> greedy incumbent -> integer program -> certificate

An answer of the integer program that breaks a budget in exact arithmetic is cut off and the program solved again; what
is returned has passed `certify` in every case.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from solvers import ilp
from solvers.backends import Backend, backend_named
from solvers.backends.base import FAILED, INFEASIBLE
from solvers.certify import exact_total, violations
from solvers.greedy import greedy
from solvers.presolve import affordable, below, undominated
from solvers.problem import Mask, Problem, ProblemError
from solvers.relax import cheapest, minima
from solvers.solution import PROVEN, Choice, Solution, Status, choice_of, relative_gap

COARSE = 2.0**10  # an objective this far below the span it was scaled by is solved again at its own scale


@dataclass(frozen=True)
class _State:
    """What is known so far."""

    choice: Choice | None
    bound: float
    stopped: str
    infeasible: bool = False


def solve(problem: Problem, *, time_limit: float = 60.0, gap: float = 0.0, backend: str | None = None) -> Solution:
    """The best choice within all budgets and ties, or the proof that there is none, or what a limit left.

    time_limit: seconds of wall time for all of it (a backend may run a little over); gap: stop once no choice can save
    more than this share of the objective; backend: a name of `backends.BACKENDS`, None for the first that runs here.
    Raises ProblemError and BackendError.
    """
    if not time_limit > 0 or not 0 <= gap < 1:
        raise ProblemError(f"time_limit is {time_limit} and gap {gap}; expected seconds > 0 and a share in [0, 1)")
    chosen, start = backend_named(backend), time.monotonic()
    keep = affordable(problem, undominated(problem, problem.allowed))
    state = _start(problem, keep)
    if not state.infeasible and not _good_enough(state, gap):
        state = _search(problem, keep, state, chosen, _Limits(start + time_limit, gap))
    return _solution(state, time.monotonic() - start, chosen.name)


@dataclass(frozen=True)
class _Limits:
    deadline: float
    gap: float


def _start(problem: Problem, keep: Mask) -> _State:
    """What needs no search: the floors of objective and budgets, each alone, and a greedy choice."""
    floor = cheapest(problem, problem.costs, keep)
    if floor is None:
        return _State(None, math.inf, "some group has no candidate left that fits its ties and the budgets", True)
    for budget in problem.budgets:
        least = cheapest(problem, problem.column(budget.column), keep)
        if least is None or exact_total(problem, budget.column, least) > budget.limit:
            return _State(None, math.inf, f"the least sum of {budget.column} is above its budget", True)
    choice = choice_of(problem, floor)
    if not violations(problem, floor):
        return _State(choice, choice.objective, "the least objective is within every budget")
    return _State(greedy(problem, keep), choice.objective, "the greedy choice meets the bound")


def _search(problem: Problem, keep: Mask, state: _State, backend: Backend, limits: _Limits) -> _State:
    cuts: list[list[int]] = []
    while (left := limits.deadline - time.monotonic()) > 0:
        if state.choice:
            keep = below(problem, keep, state.choice.objective)
        base = math.fsum(minima(problem, problem.costs, keep)[0])
        span = _span(problem, keep, base, state.choice)
        answer = ilp.run(problem, ilp.build(problem, keep, span, cuts), backend, left, _inner_gap(state, base, limits))
        coarse = state.choice is None
        state, broken = _take(problem, state, answer)
        if broken:
            cuts += [ilp.cover(problem, problem.budgets[b], answer.picks or (), keep) for b in broken]
        elif not (coarse and state.choice and COARSE * (state.choice.objective - base) < span):
            return state
    return replace(state, stopped="the time limit was reached")


def _take(problem: Problem, state: _State, answer: ilp.Answer) -> tuple[_State, list[int]]:
    """The state after an answer, and the budgets that the answer breaks in exact arithmetic."""
    if answer.ended.state == INFEASIBLE:
        if state.choice is None:
            return _State(None, math.inf, answer.ended.why, True), []
        return replace(state, stopped="the backend denies a certified choice; its bound is not used"), []
    bound = state.bound if answer.ended.state == FAILED else max(state.bound, answer.bound)
    state = replace(state, bound=bound, stopped=answer.ended.why)
    if answer.picks is None:
        return state, []
    found = violations(problem, answer.picks)
    if not found:
        return replace(state, choice=_better(state.choice, choice_of(problem, answer.picks))), []
    if any(violation.kind != "budget" for violation in found):
        return replace(state, stopped=f"the backend's answer is refused: {found[0].sentence}"), []
    return state, [violation.place for violation in found]


def _better(old: Choice | None, new: Choice) -> Choice:
    return old if old is not None and old.objective <= new.objective else new


def _good_enough(state: _State, gap: float) -> bool:
    return state.choice is not None and relative_gap(state.choice.objective, state.bound) <= gap


def _span(problem: Problem, keep: Mask, base: float, choice: Choice | None) -> float:
    """How far above `base` an optimum may lie."""
    if choice is not None:
        return choice.objective - base
    most = -minima(problem, -problem.costs, keep)[0]
    return math.fsum(most) - base


def _inner_gap(state: _State, base: float, limits: _Limits) -> float:
    """The gap on the objective as one on what it exceeds `base` by, which is all that the program sees."""
    if state.choice is None or state.choice.objective <= base:
        return limits.gap
    return limits.gap * state.choice.objective / (state.choice.objective - base)


def _solution(state: _State, seconds: float, backend: str) -> Solution:
    if state.infeasible:
        return Solution(Status.INFEASIBLE, None, math.inf, state.stopped, seconds, backend)
    if state.choice is None:
        return Solution(Status.INTERRUPTED, None, state.bound, state.stopped, seconds, backend)
    bound = min(state.bound, state.choice.objective)
    proven = relative_gap(state.choice.objective, bound) <= PROVEN
    status = Status.OPTIMAL if proven else Status.FEASIBLE
    return Solution(status, state.choice, bound, state.stopped, seconds, backend)
