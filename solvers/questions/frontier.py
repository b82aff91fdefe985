"""The frontier: the best choice at every limit of one budget, each with its own proof.

From the loosest limit to the tightest: one core serves all, the prices of one limit begin the next, and the bound of a
looser limit holds for every tighter one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitplan.solvers.certify import exact_total, violations
from bitplan.solvers.problem import Budget, Mask, Number, Picks, Problem, ProblemError, rebudget
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.reduction.presolve import SLIVER, affordable, row_of
from bitplan.solvers.search.core import Core, core_of, shrink
from bitplan.solvers.search.lagrangian import lightest
from bitplan.solvers.search.path import SearchLimits, State, exact
from bitplan.solvers.solution import Choice, Solution, choice_of
from bitplan.solvers.solve import NOTHING, solution_of


def frontier(
    problem: Problem, column: str, limits: Sequence[Number], *, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> Iterator[tuple[Number, Solution]]:  # fmt: skip
    """Limits from the loosest to the tightest, each with the solution that `solve` would give.

    The limits take the place of any budget on `column`; all other budgets stay. time_limit: seconds for each; gap: as
    in `solve`. Raises ProblemError and BackendError.
    """
    if not limits:
        raise ProblemError(f"there are no limits on {column!r}; give at least one")
    program = backend_named(backend)
    others = tuple(budget for budget in problem.budgets if budget.column != column)
    at = [(limit, rebudget(problem, (*others, Budget(column, limit)))) for limit in sorted(limits, reverse=True)]
    keep = affordable(at[0][1], problem.allowed)
    core = core_of(at[0][1], keep)
    floor = None if core is None else core.picks(lightest(core, core.weight[:, -1]))
    free = None if core is None else choice_of(problem, core.picks(lightest(core, core.cost)))
    state = State(None, -np.inf, "nothing was searched")
    for limit, bounded in at:
        start = time.monotonic()
        if core is None or free is None or floor is None or _above(problem, column, floor, limit):
            state = State(None, np.inf, NOTHING, (), True)
        else:
            state = _next(bounded, state, free)
            if not state.infeasible and not state.good(gap):
                smaller = _tightened(bounded, core, keep)
                known = SearchLimits(start + time_limit, gap, program)
                state = (
                    State(None, np.inf, NOTHING, (), True) if smaller is None else exact(bounded, smaller, state, known)
                )
        yield limit, solution_of(state, time.monotonic() - start, program.name)


def _above(problem: Problem, column: str, floor: Picks, limit: Number) -> bool:
    return exact_total(problem, column, floor) > Fraction(limit) * (1 + SLIVER)


def _next(problem: Problem, before: State, free: Choice) -> State:
    """What a looser limit tells of this one."""
    if before.infeasible:
        return before
    if not violations(problem, free.picks):
        prices = (0.0,) * len(problem.budgets)
        return State(free, free.objective, "the least objective is within every budget", prices)
    if before.choice is not None and not violations(problem, before.choice.picks):
        return before
    bound = before.bound if before.choice is None else min(before.bound, before.choice.objective)
    return replace(before, choice=None, bound=bound, stopped="nothing was searched")


def _tightened(problem: Problem, core: Core, keep: Mask) -> Core | None:
    """The core under the last budget's own limit, without entries that alone exceed it."""
    slack = core.slack.copy()
    slack[-1] = row_of(problem, problem.budgets[-1], keep).slack
    fits = core.weight[:, -1] <= slack[-1]
    smaller = core if fits.all() else shrink(core, fits)
    return None if smaller is None else replace(smaller, slack=slack)
