"""The exact path on a core: prices -> repair -> reduced-cost fixing -> labelling, or else PuLP -> proof.

Every choice is certified in exact arithmetic before it counts. A proof rests on bounds in 64-bit floats, hence "to one
part in 10^9"; `certify.lower_bound` recomputes without rounding what the best prices alone prove.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Deadline
from bitplan.solvers.problem import Mask, Problem
from bitplan.solvers.programs import program
from bitplan.solvers.programs.backends import Backend
from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE
from bitplan.solvers.reduction.minima import minima
from bitplan.solvers.reduction.presolve import undominated
from bitplan.solvers.search.core import Core, Ints, core_of, shrink
from bitplan.solvers.search.dual import ascend
from bitplan.solvers.search.labels import OutOfRoomError, search
from bitplan.solvers.search.relaxation import DualPoint, fix, forced, relax
from bitplan.solvers.search.repair import repair
from bitplan.solvers.solution import Choice, choice_of, relative_gap

PRECISION = 1e-10  # share of the objective: smaller improvements are not searched for
WIDTH = 20_000  # most labels after a step
FEWEST, GROWTH = 8, 4  # entries beside the relaxation's in the first labelling, and the factor from one to the next
NEAR = 8  # how many of the best points give bounds
REPAIRED = 3  # how many of the best points are repaired
SHRINKS = 0.9  # price again if fixing leaves at most this share of the entries
ROUGH = 0.01  # gap on the least sum of a budget: usually enough to find a feasible choice
COARSE = 2.0**10  # an objective this far below the span that set its scale is solved again at its own scale


@dataclass(frozen=True)
class SearchLimits:
    """The limits of one search.

    Attributes:
        deadline: when to end.
        gap: the share of the objective that is good enough.
        backend: of PuLP.
    """

    deadline: Deadline
    gap: float
    backend: Backend


@dataclass(frozen=True)
class SearchState:
    """The state of a search.

    Attributes:
        choice: the best certified choice; None if none is known.
        bound: a lower bound on the objective of every better choice.
        stopped: the reason why the search ended, in one phrase.
        prices: of the best relaxation of the whole problem, one for each budget.
        infeasible: whether no choice exists.
    """

    choice: Choice | None
    bound: float
    stopped: str
    prices: tuple[float, ...] = ()
    infeasible: bool = False

    def within(self, gap: float) -> bool:
        """Return whether there is a choice that is proven to be within the gap."""
        return self.choice is not None and relative_gap(self.choice.objective, self.bound) <= gap


def infeasible(reason: str) -> SearchState:
    """Return the state of a problem without a choice."""
    return SearchState(None, math.inf, reason, (), True)


def run_exact(problem: Problem, core: Core, state: SearchState, limits: SearchLimits) -> SearchState:
    """Search the core and return the improved state: with a proof, or with what was reached within the limits."""
    state, points = _price(problem, core, state, limits.gap)
    if state.within(limits.gap):
        return state
    for attempt in (_run_labelling, _find_feasible, _finish):
        smaller, state, points = _narrow(problem, core, state, points)
        if smaller is None:
            return replace(state, bound=_proven(state), stopped="no candidate is left that could do better")
        core = smaller
        state, finished = (
            (state, True) if state.within(limits.gap) else attempt(problem, core, state, points, limits)
        )  # fmt: skip
        if finished or state.within(limits.gap):
            break
    return state


def _price(problem: Problem, core: Core, state: SearchState, gap: float) -> tuple[SearchState, list[DualPoint]]:
    """Find the best prices and their bound, and repair the best points until one choice is within the gap."""
    start = np.array(state.prices) if state.prices else None
    points = ascend(core, start, _above_base(core, state))
    best = points[-1]
    if core.base + best.value >= state.bound:
        state = replace(state, bound=core.base + best.value, prices=tuple(best.prices.tolist()))
    for point in points[: -REPAIRED - 1 : -1]:
        if state.within(gap):
            break
        if (entries := repair(core, point)) is not None:
            state = _accept(problem, core, state, entries)
    return replace(state, stopped="a repaired choice meets the bound of the relaxation"), points


def _narrow(
    problem: Problem, core: Core, state: SearchState, points: list[DualPoint]
) -> tuple[Core | None, SearchState, list[DualPoint]]:
    """Fix by reduced cost and price again while the core shrinks; no core if nothing better than the choice remains."""
    while state.choice is not None:
        size, near = len(core.candidate), points[-NEAR:]
        smaller = fix(core, near, _above_base(core, state) - PRECISION * state.choice.objective)
        if smaller is None:
            return None, state, points
        if smaller is core:
            break
        core, points = smaller, [relax(smaller, point.prices) for point in near]
        if len(core.candidate) > SHRINKS * size:
            break
        priced, more = _price(problem, core, state, 0.0)
        state = replace(priced, prices=state.prices)  # prices of the smaller core prove nothing of the whole problem
        points = sorted([*points, *more], key=lambda point: point.value)
    return core, state, points


def _run_labelling(
    problem: Problem, core: Core, state: SearchState, points: list[DualPoint], limits: SearchLimits
) -> tuple[SearchState, bool]:
    """Label the entries nearest to the relaxation's, then ever more of them, while there is room.

    A choice with an entry outside of these costs at least the bound of that entry, which completes the proof.
    """
    bounds = forced(core, points[-1])
    outside = np.sort(bounds[bounds > points[-1].value])
    count, state = FEWEST, replace(state, stopped="every partial choice that could do better was followed")
    while True:
        whole = count >= len(outside)
        reach = math.inf if whole else float(outside[count])
        try:
            small, entries = _label(core, state, points, (reach, bounds), limits.deadline)
        except OutOfRoomError:
            return state, False
        before, state = state, state if entries is None else _accept(problem, small, state, entries)
        if entries is not None and state is before:
            return state, False  # within the budgets in floats, not exactly: only the program can exclude it
        if state.choice is None and whole:
            return infeasible("no partial choice can be completed within the budgets"), True
        proven = core.base + reach
        state = replace(state, bound=max(state.bound, proven if state.choice is None else min(proven, _proven(state))))
        if whole or state.within(max(limits.gap, 2 * PRECISION)):
            return state, True
        count *= GROWTH


def _label(
    core: Core, state: SearchState, points: list[DualPoint], part: tuple[float, np.ndarray], deadline: Deadline
) -> tuple[Core, Ints | None]:
    """Label the entries whose bound is below the reach. part: the reach (inf for all entries), and the bounds (E,)."""
    reach, bounds = part
    whole = math.isinf(reach)
    small = core if whole else shrink(core, bounds < reach)
    assert small is not None  # it contains the minimiser of the relaxation
    most = math.inf if state.choice is None else _above_base(core, state) - PRECISION * state.choice.objective
    near = points[-NEAR:] if whole else [relax(small, point.prices) for point in points[-NEAR:]]
    return small, search(small, near, most, WIDTH, deadline)


def _find_feasible(
    problem: Problem, core: Core, state: SearchState, points: list[DualPoint], limits: SearchLimits
) -> tuple[SearchState, bool]:
    """If no choice is known, minimise the last budget's sum under the others: this finds one, or proves there is none.

    Far fewer candidates remain in this search than in a search by the objective."""
    if state.choice is not None or not problem.budgets:
        return state, False
    keep = np.zeros(problem.size, dtype=bool)
    keep[core.candidate] = True
    *others, last = problem.budgets
    relaxed = replace(problem, objective={last.column: 1.0}, budgets=tuple(others), allowed=problem.allowed & keep)
    half = limits.deadline.half()
    small = core_of(relaxed, relaxed.allowed)
    if small is None:
        return state, False
    least = SearchState(None, -math.inf, state.stopped)
    for gap in (ROUGH, 0.0):
        least = run_exact(relaxed, small, least, replace(limits, gap=gap, deadline=half))
        if least.infeasible:
            return infeasible(least.stopped), True
        if least.choice is None:
            break
        if not violations(problem, least.choice.picks):
            return replace(state, choice=choice_of(problem, least.choice.picks)), False
        if min(least.bound, least.choice.objective) * (1 - PRECISION) > last.limit:
            return infeasible(f"the least sum of {last.column} within the other budgets is above its own"), True
    return state, False


def _finish(
    problem: Problem, core: Core, state: SearchState, points: list[DualPoint], limits: SearchLimits
) -> tuple[SearchState, bool]:
    """Solve the rest as an integer program."""
    return _run_program(problem, core, state, limits), True


def _run_program(problem: Problem, core: Core, state: SearchState, limits: SearchLimits) -> SearchState:
    """Solve the core with PuLP; again with a cut while the answer exceeds a budget in exact arithmetic."""
    keep = np.zeros(problem.size, dtype=bool)
    keep[core.candidate] = True
    if state.choice is not None:
        keep[list(state.choice.picks)] = True  # a backend that calls a certified choice infeasible shows its error
    keep = undominated(problem, keep)
    base = math.fsum(minima(problem, problem.costs, keep)[0])
    cuts: list[list[int]] = []
    while limits.deadline.left() > 0:
        span = _span(problem, keep, base, state.choice)
        built = program.build(problem, keep, span, cuts)
        answer = program.run(problem, built, limits.backend, limits.deadline, _program_gap(state, base, limits))
        first = state.choice is None
        state, broken = _read_answer(problem, state, answer)
        if broken:
            cuts += [program.cover(problem, problem.budgets[b], answer.picks or (), keep) for b in broken]
        elif not (first and state.choice and COARSE * (state.choice.objective - base) < span):
            return state
    return replace(state, stopped=limits.deadline.reason())


def _read_answer(
    problem: Problem, state: SearchState, answer: program.ProgramAnswer
) -> tuple[SearchState, list[int]]:  # fmt: skip
    """Return the state after an answer, and the budgets that the answer exceeds in exact arithmetic."""
    result = answer.result
    if result.state == INFEASIBLE:
        if state.choice is None:
            return infeasible(result.reason), []
        return replace(state, stopped="the backend calls a certified choice infeasible; its bound is not used"), []
    bound = state.bound if result.state == FAILED else max(state.bound, answer.bound)
    state = replace(state, bound=bound, stopped=result.reason)
    if answer.picks is None:
        return state, []
    broken = violations(problem, answer.picks)
    if not broken:
        return replace(state, choice=better(state.choice, choice_of(problem, answer.picks))), []
    if any(violation.kind != "budget" for violation in broken):
        return replace(state, stopped=f"the backend's answer is refused: {broken[0].sentence}"), []
    return state, [violation.place for violation in broken]


def _accept(problem: Problem, core: Core, state: SearchState, entries: Ints) -> SearchState:
    """Return the state with the choice of these entries if it is better and certified; else the same state."""
    if state.choice is not None and core.base + float(core.cost[entries].sum()) >= state.choice.objective:
        return state
    picks = core.picks(entries)
    if violations(problem, picks):
        return state
    return replace(state, choice=better(state.choice, choice_of(problem, picks)))


def better(old: Choice | None, new: Choice) -> Choice:
    """Return the choice of the smaller objective; the old one of equals."""
    return old if old is not None and old.objective <= new.objective else new


def _above_base(core: Core, state: SearchState) -> float:
    return math.inf if state.choice is None else state.choice.objective - core.base


def _proven(state: SearchState) -> float:
    """Return the bound that a complete search proves."""
    assert state.choice is not None
    return max(state.bound, state.choice.objective * (1 - PRECISION))


def _span(problem: Problem, keep: Mask, base: float, choice: Choice | None) -> float:
    """Return how far above `base` an optimum may lie."""
    if choice is not None:
        return choice.objective - base
    most = -minima(problem, -problem.costs, keep)[0]
    return math.fsum(most) - base


def _program_gap(state: SearchState, base: float, limits: SearchLimits) -> float:
    """Convert the gap to one on the objective above `base`, which is the program's own objective."""
    if state.choice is None or state.choice.objective <= base:
        return limits.gap
    return limits.gap * state.choice.objective / (state.choice.objective - base)
