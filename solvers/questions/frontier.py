"""The trade-off frontier: the best choice at every limit of one budget, each with its own proof.

Limits are taken from the loosest to the tightest: all use one core, the prices of one limit start the search at the
next, and the bound of a looser limit holds for every tighter one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from bitplan.solvers.certify import exact_total, violations
from bitplan.solvers.effort import DEFAULT, Effort
from bitplan.solvers.problem import Budget, Mask, Number, Picks, Problem, ProblemError, rebudget
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.reduction.presolve import SLIVER, affordable, row_of
from bitplan.solvers.search.core import Core, core_of, shrink
from bitplan.solvers.search.path import SearchLimits, SearchState, infeasible, run_exact
from bitplan.solvers.search.relaxation import lightest
from bitplan.solvers.search.units import enlarged, restored
from bitplan.solvers.solution import Choice, Solution, choice_of
from bitplan.solvers.solve import NO_CANDIDATE, solution_of


@dataclass(frozen=True)
class _SharedCore:
    """What all limits share.

    Attributes:
        keep: (C,) the candidates that fit the loosest limit.
        core: of these candidates; None where some group has none left.
        smallest: the choice of the least sum of the limited column.
        unbounded: the choice of the least objective, budgets aside.
    """

    keep: Mask
    core: Core
    smallest: Picks
    unbounded: Choice


def frontier(
    problem: Problem, column: str, limits: Sequence[Number], effort: Effort = DEFAULT
) -> Iterator[tuple[Number, Solution]]:
    """Yield limits from the loosest to the tightest, each with the solution that `solve` would return.

    The limits replace any budget on `column`; all other budgets stay. The effort is for each limit. Raises ProblemError
    and BackendError.
    """
    if not limits:
        raise ProblemError(f"there are no limits on {column!r}; give at least one")
    others = tuple(budget for budget in problem.budgets if budget.column != column)
    ordered = sorted(limits, reverse=True)
    enlarged_problem, units = enlarged(rebudget(problem, (*others, Budget(column, ordered[0]))))
    *fixed, last = enlarged_problem.budgets
    factor = 1 if units is None else 2 ** units.weights[-1]
    larger = [limit if factor == 1 else Fraction(limit) * factor for limit in ordered]
    answers = _frontier(rebudget(enlarged_problem, fixed), last.column, larger, effort)
    for limit, (_, solution) in zip(ordered, answers, strict=True):
        yield limit, restored(problem, solution, units)


def _frontier(
    problem: Problem, column: str, limits: Sequence[Number], effort: Effort
) -> Iterator[tuple[Number, Solution]]:
    backend = backend_named(effort.backend)
    others = tuple(budget for budget in problem.budgets if budget.column != column)
    problems = [(limit, rebudget(problem, (*others, Budget(column, limit)))) for limit in sorted(limits, reverse=True)]
    shared = _shared_core(problems[0][1])
    state = SearchState(None, -np.inf, "nothing was searched")
    for limit, bounded in problems:
        start = time.monotonic()
        state = infeasible(NO_CANDIDATE) if shared is None else _start(bounded, shared, state)
        if shared is not None and not state.infeasible and not state.within(effort.gap):
            core = _tightened(bounded, shared)
            search_limits = SearchLimits(effort.deadline(), effort.gap, backend)
            state = infeasible(NO_CANDIDATE) if core is None else run_exact(bounded, core, state, search_limits)
        yield limit, solution_of(state, time.monotonic() - start, backend.name)


def _shared_core(problem: Problem) -> _SharedCore | None:
    keep = affordable(problem, problem.allowed)
    core = core_of(problem, keep)
    if core is None:
        return None
    smallest = core.picks(lightest(core, core.weight[:, -1]))
    return _SharedCore(keep, core, smallest, choice_of(problem, core.picks(lightest(core, core.cost))))


def _start(problem: Problem, shared: _SharedCore, previous: SearchState) -> SearchState:
    """Return what is known at this limit before any search, given the result at a looser one."""
    limited = problem.budgets[-1]
    least = exact_total(problem, limited.column, shared.smallest)
    if least > Fraction(limited.limit) * (1 + SLIVER):
        return infeasible(NO_CANDIDATE)
    if previous.infeasible:
        return previous
    if not violations(problem, shared.unbounded.picks):
        prices = (0.0,) * len(problem.budgets)
        reason = "the least objective is within every budget"
        return SearchState(shared.unbounded, shared.unbounded.objective, reason, prices)
    if previous.choice is not None and not violations(problem, previous.choice.picks):
        return previous
    bound = previous.bound if previous.choice is None else min(previous.bound, previous.choice.objective)
    return replace(previous, choice=None, bound=bound, stopped="nothing was searched")


def _tightened(problem: Problem, shared: _SharedCore) -> Core | None:
    """Return the core under the last budget's own limit, without entries that exceed it alone."""
    core, slack = shared.core, shared.core.slack.copy()
    slack[-1] = row_of(problem, problem.budgets[-1], shared.keep).slack
    fits = core.weight[:, -1] <= slack[-1]
    smaller = core if fits.all() else shrink(core, fits)
    return None if smaller is None else replace(smaller, slack=slack)
