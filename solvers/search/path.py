"""The exact path on a core: best prices -> repaired choice -> reduced-cost fixing -> labels, or else PuLP -> proof.

Every choice is certified in exact arithmetic before it counts. A proof rests on bounds in 64-bit floats, hence "to one
part in 10^9"; `certify.lower_bound` re-computes what the best prices alone prove without any rounding.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from bitplan.solvers.certify import violations
from bitplan.solvers.problem import Problem
from bitplan.solvers.programs import ilp
from bitplan.solvers.programs.backends import Backend
from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE
from bitplan.solvers.reduction.presolve import undominated
from bitplan.solvers.reduction.relax import minima
from bitplan.solvers.search.core import Core, Ints, core_of, shrink
from bitplan.solvers.search.dual import ascend
from bitplan.solvers.search.labels import OutOfRoomError, search
from bitplan.solvers.search.lagrangian import DualPoint, fix, forced, relax
from bitplan.solvers.search.repair import repair
from bitplan.solvers.solution import Choice, choice_of, relative_gap

SHARP = 1e-10  # of the objective: what is better by less is not sought
WIDTH = 20_000  # labels at once
FEWEST, GROWTH = 8, 4  # entries beside the relaxation's that labels begin with, and how they grow
NEAR = 8  # how many of the best points serve as bounds
REPAIRED = 3  # how many of them are repaired
SHRINKS = 0.9  # another round of prices pays where fixing left at most this share
ROUGH = 0.01  # of the least sum of one budget: near enough at first to tell whether there is a choice
COARSE = 2.0**10  # an objective this far below the span it was scaled by is solved again at its own scale


@dataclass(frozen=True)
class SearchLimits:
    """deadline on the clock `time.monotonic`; gap: a share of the objective that is good enough; backend for PuLP."""

    deadline: float
    gap: float
    backend: Backend


@dataclass(frozen=True)
class State:
    """What is known so far. bound: on what is better than the choice, if anything is; prices: of the best relaxation of
    the whole, one a budget."""

    choice: Choice | None
    bound: float
    stopped: str
    prices: tuple[float, ...] = ()
    infeasible: bool = False

    def good(self, gap: float) -> bool:
        return self.choice is not None and relative_gap(self.choice.objective, self.bound) <= gap


def exact(problem: Problem, core: Core, state: State, limits: SearchLimits) -> State:
    """What a search of the core adds to what is known: in the end a proof, or what a limit left."""
    state, points = _price(problem, core, state, limits.gap)
    if state.good(limits.gap):
        return state
    for attempt in (_label, _reach, _finish):
        left, state, points = _narrow(problem, core, state, points)
        if left is None:
            return replace(state, bound=_sharp(state), stopped="no candidate is left that could do better")
        core = left
        state, ended = (state, True) if state.good(limits.gap) else attempt(problem, core, state, points, limits)
        if ended or state.good(limits.gap):
            break
    return state


def _price(problem: Problem, core: Core, state: State, gap: float) -> tuple[State, list[DualPoint]]:
    """The best prices, the bound that they give, and choices repaired from what they choose, until one is good."""
    start = np.array(state.prices) if state.prices else None
    points = ascend(core, start, _above(core, state))
    best = points[-1]
    if core.base + best.value >= state.bound:
        state = replace(state, bound=core.base + best.value, prices=tuple(best.prices.tolist()))
    for point in points[: -REPAIRED - 1 : -1]:
        if state.good(gap):
            break
        if (entries := repair(core, point)) is not None:
            state = _met(problem, core, state, entries)
    return replace(state, stopped="a repaired choice meets the bound of the relaxation"), points


def _narrow(
    problem: Problem, core: Core, state: State, points: list[DualPoint]
) -> tuple[Core | None, State, list[DualPoint]]:
    """Fix by reduced cost and price again while that pays; no core where nothing better than the choice is left."""
    while state.choice is not None:
        size, near = len(core.candidate), points[-NEAR:]
        smaller = fix(core, near, _above(core, state) - SHARP * state.choice.objective)
        if smaller is None:
            return None, state, points
        if smaller is core:
            break
        core, points = smaller, [relax(smaller, point.prices) for point in near]
        if len(core.candidate) > SHRINKS * size:
            break
        priced, found = _price(problem, core, state, 0.0)
        state = replace(priced, prices=state.prices)  # those of what is left prove nothing of the whole
        points = sorted([*points, *found], key=lambda point: point.value)
    return core, state, points


def _label(
    problem: Problem, core: Core, state: State, points: list[DualPoint], limits: SearchLimits
) -> tuple[State, bool]:
    """Labels over the entries nearest to the relaxation's, then over ever more, while there is room for them.

    Whatever takes an entry further off costs at least what its bound says: that proves, too.
    """
    beyond = forced(core, points[-1])
    further = np.sort(beyond[beyond > points[-1].value])
    count, state = FEWEST, replace(state, stopped="every partial choice that could do better was followed")
    while True:
        whole = count >= len(further)
        reach = math.inf if whole else float(further[count])
        small = core if whole else shrink(core, beyond < reach)
        assert small is not None  # it holds what the relaxation chooses
        most = math.inf if state.choice is None else _above(core, state) - SHARP * state.choice.objective
        near = points[-NEAR:] if whole else [relax(small, point.prices) for point in points[-NEAR:]]
        try:
            entries = search(small, near, most, WIDTH, limits.deadline)
        except OutOfRoomError:
            return state, False
        before, state = state, state if entries is None else _met(problem, small, state, entries)
        if entries is not None and state is before:
            return state, False  # within the budgets by floats, not exactly: only the program can cut it off
        if state.choice is None and whole:
            return State(None, math.inf, "no partial choice can be completed within the budgets", (), True), True
        proven = core.base + reach
        state = replace(state, bound=max(state.bound, proven if state.choice is None else min(proven, _sharp(state))))
        if whole or state.good(max(limits.gap, 2 * SHARP)):
            return state, True
        count *= GROWTH


def _reach(
    problem: Problem, core: Core, state: State, points: list[DualPoint], limits: SearchLimits
) -> tuple[State, bool]:
    """Where no choice is known yet: the least sum of one budget under the others, which is a choice, or shows that
    there is none. By the same path, so that far fewer entries are left than where the objective has its say."""
    if state.choice is not None or not problem.budgets:
        return state, False
    keep = np.zeros(problem.size, dtype=bool)
    keep[core.candidate] = True
    *others, last = problem.budgets
    eased = replace(problem, objective={last.column: 1.0}, budgets=tuple(others), allowed=problem.allowed & keep)
    half = (limits.deadline + time.monotonic()) / 2
    small = core_of(eased, eased.allowed)
    if small is None:
        return state, False
    found = State(None, -math.inf, state.stopped)
    for gap in (ROUGH, 0.0):
        found = exact(eased, small, found, replace(limits, gap=gap, deadline=half))
        if found.infeasible:
            return State(None, math.inf, found.stopped, (), True), True
        if found.choice is None:
            break
        if not violations(problem, found.choice.picks):
            return replace(state, choice=choice_of(problem, found.choice.picks)), False
        if min(found.bound, found.choice.objective) * (1 - SHARP) > last.limit:
            why = f"the least sum of {last.column} within the other budgets is above its own"
            return State(None, math.inf, why, (), True), True
    return state, False


def _finish(
    problem: Problem, core: Core, state: State, points: list[DualPoint], limits: SearchLimits
) -> tuple[State, bool]:
    """PuLP on all that is left."""
    return _program(problem, core, state, limits), True


def _program(problem: Problem, core: Core, state: State, limits: SearchLimits) -> State:
    """PuLP on the core, again with a cut wherever an answer breaks a budget in exact arithmetic."""
    keep = np.zeros(problem.size, dtype=bool)
    keep[core.candidate] = True
    if state.choice is not None:
        keep[list(state.choice.picks)] = True  # a backend that denies a certified choice shows that it errs
    keep = undominated(problem, keep)
    base = math.fsum(minima(problem, problem.costs, keep)[0])
    cuts: list[list[int]] = []
    while (left := limits.deadline - time.monotonic()) > 0:
        span = _span(problem, keep, base, state.choice)
        program = ilp.build(problem, keep, span, cuts)
        answer = ilp.run(problem, program, limits.backend, left, _inner_gap(state, base, limits))
        coarse = state.choice is None
        state, broken = _take(problem, state, answer)
        if broken:
            cuts += [ilp.cover(problem, problem.budgets[b], answer.picks or (), keep) for b in broken]
        elif not (coarse and state.choice and COARSE * (state.choice.objective - base) < span):
            return state
    return replace(state, stopped="the time limit was reached")


def _take(problem: Problem, state: State, answer: ilp.ProgramAnswer) -> tuple[State, list[int]]:
    """The state after an answer, and the budgets that the answer breaks in exact arithmetic."""
    if answer.ended.state == INFEASIBLE:
        if state.choice is None:
            return State(None, math.inf, answer.ended.why, (), True), []
        return replace(state, stopped="the backend denies a certified choice; its bound is not used"), []
    bound = state.bound if answer.ended.state == FAILED else max(state.bound, answer.bound)
    state = replace(state, bound=bound, stopped=answer.ended.why)
    if answer.picks is None:
        return state, []
    found = violations(problem, answer.picks)
    if not found:
        return replace(state, choice=better(state.choice, choice_of(problem, answer.picks))), []
    if any(violation.kind != "budget" for violation in found):
        return replace(state, stopped=f"the backend's answer is refused: {found[0].sentence}"), []
    return state, [violation.place for violation in found]


def _met(problem: Problem, core: Core, state: State, entries: Ints) -> State:
    """The state with the choice of these entries, where it is better and passes the certificate; else the same."""
    if state.choice is not None and core.base + float(core.cost[entries].sum()) >= state.choice.objective:
        return state
    picks = core.picks(entries)
    return (
        state if violations(problem, picks) else replace(state, choice=better(state.choice, choice_of(problem, picks)))
    )


def better(old: Choice | None, new: Choice) -> Choice:
    """The one of less objective; the old one of equals."""
    return old if old is not None and old.objective <= new.objective else new


def _above(core: Core, state: State) -> float:
    return math.inf if state.choice is None else state.choice.objective - core.base


def _sharp(state: State) -> float:
    """The bound that a finished search proves."""
    assert state.choice is not None
    return max(state.bound, state.choice.objective * (1 - SHARP))


def _span(problem: Problem, keep: np.ndarray, base: float, choice: Choice | None) -> float:
    """How far above `base` an optimum may lie."""
    if choice is not None:
        return choice.objective - base
    most = -minima(problem, -problem.costs, keep)[0]
    return math.fsum(most) - base


def _inner_gap(state: State, base: float, limits: SearchLimits) -> float:
    """The gap on the objective as one on what it exceeds `base` by, which is all that the program sees."""
    if state.choice is None or state.choice.objective <= base:
        return limits.gap
    return limits.gap * state.choice.objective / (state.choice.objective - base)
