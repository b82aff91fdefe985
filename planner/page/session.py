"""Answers requests on one profile: its problem is formulated once, then only budgets, pins and weights vary.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from bitplan.planner.choice.columns import check_known
from bitplan.planner.choice.evidence import KEEP, Evidence, z_of
from bitplan.planner.choice.limits import amount_of, budgets_of, check_pins, check_solved, on_groups
from bitplan.planner.choice.problem import formulate, in_one_unit, weighed
from bitplan.planner.choice.request import Request
from bitplan.planner.choice.shortfall import told
from bitplan.planner.errors import InfeasibleError, UserError
from bitplan.planner.views import sweep as sweeping
from bitplan.planner.views.profile_view import ProfileView, solution_variant
from bitplan.planner.views.sweep import Sweep, SweepProblem, limits_between, name_of
from bitplan.planner.views.view import Variant, View
from bitplan.solvers.certify import exact_total
from bitplan.solvers.effort import Effort, never
from bitplan.solvers.problem import Budget, Number, Problem, pin, plain, rebudget
from bitplan.solvers.questions.frontier import frontier
from bitplan.solvers.questions.infeasibility import explain
from bitplan.solvers.reduction.minima import cheapest
from bitplan.solvers.solution import Solution, Status
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies import strategy_named

NAME = "asked"  # the name of the variant in an answer
PASSING = Effort(0.15, 1e-3)  # for a slider that is being dragged
SETTLED = Effort(2.0)  # for a slider at rest
POINTS, FEWER = 40, 12  # points of the curve, and points where further budgets make each slow
_EACH = Effort(0.1, 1e-3)  # for each point
_VISIBLE = 1e-7  # share of the largest objective below which the curve ends, or the chart would show nothing else
_NOT_YET = "no plan found in passing; let go of the slider to look longer"
_NOT_FOUND = f"no plan found in {SETTLED.time_limit:g} s; loosen a limit, or let `bitplan solve` look for longer"


@dataclass(frozen=True, eq=False)
class Session:
    """A profile held open.

    Attributes:
        known: the profile with mean losses.
        real: whether only schemes that a real kernel runs are allowed.
    """

    known: ProfileView
    real: bool = True


@dataclass(frozen=True)
class PageAnswer:
    """The answer to a request.

    Attributes:
        variant: the plan, or how its search ended.
        limits: column -> its budget.
        why: a sentence where there is no plan.
    """

    variant: Variant
    limits: Mapping[str, int | float]
    why: str = ""


def answer(session: Session, request: Request, passing: bool, stopped: Callable[[], bool] = never) -> PageAnswer:
    """The best plan that the request allows. Raises UserError, ProblemError.

    passing: solve within `PASSING` instead of `SETTLED`, for a slider that is being dragged; stopped: whether the
    answer is no longer wanted, so that the search ends.
    """
    problem = pose_anew(session, request)
    effort = None if passing else replace(SETTLED, stopped=stopped)
    solution = solve(problem, effort) if effort else _glance(problem)
    variant = solution_variant(session.known, NAME, solution)
    limits = {budget.column: plain(budget.limit) for budget in problem.budgets}
    why = "" if solution.choice else _why(problem, solution, effort, session.known.evidence.roles)
    return PageAnswer(variant, limits, why)


def pose_anew(session: Session, request: Request) -> Problem:
    """The problem that `bitplan.planner.choice.limits.pose` makes, from the formulated one. Raises UserError for a
    lexicographic request."""
    if request.order:
        raise UserError("a lexicographic objective is solved stage by stage; use `bitplan solve` for it")
    evidence, base = _formulated(session, request.confidence)
    check_known(evidence, request.caps, request.weights)
    request = on_groups(evidence, request)
    caps = {column: repr(_cap(session, request.confidence, column, text)) for column, text in request.caps.items()}
    budgets = budgets_of(evidence, replace(request, caps=caps))
    check_pins(evidence, request)
    weights, pins = tuple(in_one_unit(evidence, request.weights).items()), tuple(request.pins.items())
    return rebudget(_weighed(base, weights, pins), budgets)


def view_of(session: Session, request: Request) -> View:
    """The view of the page: the curve over memory within the request, and the plans to compare with."""
    problem = pose_anew(session, request)
    open_problem = SweepProblem(_without(problem, "bytes"), "bytes", (), _smallest(problem, "bytes"))
    return sweeping.view_of(session.known, open_problem, curve(session, problem), _EACH, session.real)


def curve(session: Session, problem: Problem, still: Callable[[], None] = lambda: None) -> tuple[Variant, ...]:
    """The best plans at limits on memory in even ratios, the loosest first, without the problem's own limit on it.

    still: called before each plan; what it raises ends the curve.
    """
    least, open_problem = _smallest(problem, "bytes"), _without(problem, "bytes")
    if least is None:
        return ()
    several = bool(open_problem.budgets)
    limits = limits_between(least, max(_top(problem), least), Sweep(points=FEWER if several else POINTS))
    solutions: Iterable[tuple[Number, Solution]]
    if several:
        solutions = (
            (most, _glance(rebudget(open_problem, [*open_problem.budgets, Budget("bytes", most)]))) for most in limits
        )
    else:
        solutions = frontier(open_problem, "bytes", limits, _EACH)
    plans = []
    for most, each in solutions:
        still()
        one = solution_variant(session.known, name_of("bytes", plain(most)), each, plain(most))
        plans += [one] if one.picks else []
    worst = max((one.objective or 0.0 for one in plans), default=0.0)
    return tuple(one for one in plans if (one.objective or 0.0) >= _VISIBLE * worst)


def _without(problem: Problem, column: str) -> Problem:
    """The problem without its budget on the column."""
    return rebudget(problem, [budget for budget in problem.budgets if budget.column != column])


def _top(problem: Problem) -> int:
    """Returns the largest limit of the curve in bytes: twice the largest schemes, at most full precision.

    Beyond it, losses are too small for the scale of the chart.
    """
    size, starts = problem.columns["bytes"], problem.offsets[:-1]
    is_keep = np.array([name == KEEP for names in problem.candidates for name in names])
    schemes = np.maximum.reduceat(np.where(is_keep, 0, size), starts).sum().item()
    return int(min(2 * schemes, np.maximum.reduceat(size, starts).sum().item()))


def ranges_of(session: Session) -> dict[str, tuple[float, float]]:
    """Column -> the smallest and the largest sum that an allowed choice can have in that column."""
    _, base = _formulated(session, None)
    return {
        name: (_smallest(base, name) or 0, np.maximum.reduceat(values, base.offsets[:-1]).sum().item())
        for name, values in base.columns.items()
    }


def _smallest(problem: Problem, column: str) -> int | float | None:
    picks = cheapest(problem, problem.column(column), problem.allowed)
    return None if picks is None else plain(exact_total(problem, column, picks))


def _glance(problem: Problem) -> Solution:
    """A quick solution: for one budget mostly within the gap of `PASSING`, else a repaired choice with a bound."""
    if len(problem.budgets) < 2:
        return solve(problem, PASSING)
    return strategy_named("lagrangian").run(problem, PASSING)


def _why(problem: Problem, solution: Solution, effort: Effort | None, roles: Mapping[str, str]) -> str:
    """Why there is no plan. Without an effort, in passing, only what can be known without an integer program."""
    if solution.status is Status.INTERRUPTED:
        return _NOT_FOUND if effort else _NOT_YET
    if effort is None and len(problem.budgets) > 1:
        each = [explain(rebudget(problem, [budget]), named=len(problem.groups)) for budget in problem.budgets]
        reasons = [told(problem, one, roles) for one in each if not one.least_sums or not one.least_sums[0].within]
        return f"no plan fits: {reasons[0] if reasons else 'each budget can be met alone, but not together'}"
    try:
        check_solved(problem, solution, effort or SETTLED, roles)
    except InfeasibleError as error:
        return str(error)
    return ""


@lru_cache(maxsize=8)
def _formulated(session: Session, confidence: float | None) -> tuple[Evidence, Problem]:
    """The evidence at this confidence, and the problem without objective, budgets and pins."""
    evidence = replace(session.known.evidence, z=z_of(confidence))
    return evidence, formulate(evidence, {}, (), session.real)


@lru_cache(maxsize=8)
def _weighed(base: Problem, weights: tuple[tuple[str, float], ...], pins: tuple[tuple[str, str], ...]) -> Problem:
    return pin(replace(base, objective=weighed(dict(weights), base.columns)), dict(pins))


@lru_cache(maxsize=64)
def _cap(session: Session, confidence: float | None, column: str, text: str) -> float:
    return float(amount_of(_formulated(session, confidence)[0], column, text))
