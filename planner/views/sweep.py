"""Computes a frontier: the best plan at every limit of one column, as a `View`. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bitplan.planner.choice.columns import check_known
from bitplan.planner.choice.evidence import Evidence
from bitplan.planner.choice.limits import amount_of, check_solved, pose
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import UserError
from bitplan.planner.progress import bar
from bitplan.planner.units import SHOW, SPACINGS, bits_to_bytes, parse_number
from bitplan.planner.views.profile_view import (
    ProfileView,
    cells_of,
    columns_of,
    full_precision_variant,
    solution_variant,
    uniform_variants,
)
from bitplan.planner.views.view import Variant, View
from bitplan.solvers.certify import exact_total
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Number, Problem, plain
from bitplan.solvers.questions.frontier import frontier
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solve

MOST = 10_000  # limits
COLUMNS = {"memory": "bytes", "latency": "ms", "bits": "bytes"}  # `--by` -> column; losses are columns themselves


@dataclass(frozen=True)
class Sweep:
    """The limits of a frontier.

    Attributes:
        by: the column whose limit varies, as a name of COLUMNS or a loss.
        points: number of limits.
        start: one end, written as a budget; None for the smallest reachable value.
        stop: the other end, written as a budget; None for the value of the best plan without a limit.
        spacing: a name of SPACINGS; None for even ratios where both ends are positive.
    """

    by: str = "memory"
    points: int = 40
    start: str | None = None
    stop: str | None = None
    spacing: str | None = None

    @property
    def column(self) -> str:
        """The column of the problem that `by` limits."""
        return COLUMNS.get(self.by, self.by)


@dataclass(frozen=True)
class SweepProblem:
    """A problem that is solved at every limit of one column.

    Attributes:
        problem: the problem without a limit on `column`.
        column: the column whose limit varies.
        limits: the limits from the loosest to the tightest.
        smallest: the smallest reachable sum of `column` within all other budgets; None where it is unknown.
    """

    problem: Problem
    column: str
    limits: tuple[int | float, ...]
    smallest: Number | None


def sweep_problem(data: ProfileView, request: Request, sweep: Sweep, effort: Effort) -> SweepProblem:
    """Formulates the problem and its limits. request: with pins resolved to layers.

    Raises UserError, ProblemError, InfeasibleError.
    """
    _check(sweep)
    check_known(data.evidence, [sweep.column])
    problem = pose(data.evidence, request, effort)
    problem.column(sweep.column)
    if any(budget.column == sweep.column for budget in problem.budgets):
        raise UserError(f"{sweep.column} is what the sweep varies, and also has a budget; leave the budget out")
    start, stop = (None if text is None else _amount(data.evidence, sweep, text) for text in (sweep.start, sweep.stop))
    smallest, roles = None, data.evidence.roles
    if start is None:
        start = smallest = _total(problem, sweep.column, _least(problem, sweep.column, effort), effort, roles)
    if stop is None:
        best = solve(problem, effort)
        stop = _total(problem, sweep.column, best, effort, roles)
    if start == stop and not (sweep.start and sweep.stop):
        show = SHOW.get(sweep.column, "{:.6g}".format)
        raise UserError(f"both ends of the sweep are {show(float(start))} of {sweep.column}: the best plan already "
                        "needs the least; give another budget or --objective, or both --from and --to")  # fmt: skip
    return SweepProblem(problem, sweep.column, limits_between(plain(start), plain(stop), sweep), smallest)


def solve_points(
    data: ProfileView, problems: SweepProblem, effort: Effort
) -> Iterator[tuple[Variant, Problem, Solution]]:
    """Yields for each limit from the loosest the variant, the problem with that limit, and its solution.

    Raises ProblemError, BackendError.
    """
    problem, column = problems.problem, problems.column
    solutions = frontier(problem, column, problems.limits, effort)
    for number, solution in bar(solutions, "limits", len(problems.limits), "limit"):
        limit = plain(number)
        bounded = replace(problem, budgets=(*problem.budgets, Budget(column, limit)))
        yield solution_variant(data, name_of(column, limit), solution, limit), bounded, solution


def view_of(data: ProfileView, problems: SweepProblem, points: Sequence[Variant], effort: Effort, real: bool) -> View:
    """Returns the view of a solved frontier. real: uniform plans use only schemes that a kernel runs."""
    smallest = problems.smallest
    if smallest is None and not all(point.picks for point in points):
        least = _least(problems.problem, problems.column, effort)
        smallest = None if least.choice is None else exact_total(problems.problem, problems.column, least.picks)
    return View(
        model=data.model, by=problems.column, weights=dict(problems.problem.objective),
        budgets={budget.column: plain(budget.limit) for budget in problems.problem.budgets},
        smallest=None if smallest is None else plain(smallest), columns=columns_of(data), cells=cells_of(data),
        points=tuple(points), uniform=uniform_variants(data, real), full=full_precision_variant(data),
    )  # fmt: skip


def limits_between(start: float, stop: float, sweep: Sweep) -> tuple[int | float, ...]:
    """Returns the limits from the loosest to the tightest: both ends as given, whole bytes between them."""
    low, high = sorted((start, stop))
    if sweep.spacing == "log" and low <= 0:
        raise UserError(f"there are no even ratios from {low:g} to {high:g}; give a --from above 0, or "
                        "--spacing linear")  # fmt: skip
    log = low > 0 and sweep.spacing != "linear"
    shares = [i / (sweep.points - 1) for i in range(1, sweep.points - 1)]
    between = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    if sweep.column == "bytes":
        between = [int(limit) for limit in between]
    return tuple(sorted({low, high, *(limit for limit in between if low < limit < high)}, reverse=True))


def name_of(column: str, limit: float) -> str:
    """Returns the name of a point and of its files."""
    text = str(limit) if isinstance(limit, int) else format(limit, ".9g")
    return "".join(c if c.isalnum() or c in "-_.+" else "_" for c in f"{column}-{text}")


def _check(sweep: Sweep) -> None:
    if sweep.points < 2:
        raise UserError(f"a sweep of {sweep.points} points has no two ends; give --points of at least 2")
    if sweep.points > MOST:
        raise UserError(f"a sweep of {sweep.points} points solves as often; give --points of at most {MOST}")
    if sweep.spacing not in (None, *SPACINGS):
        raise UserError(f"there is no spacing {sweep.spacing!r}; choose {' or '.join(SPACINGS)}")


def _amount(evidence: Evidence, sweep: Sweep, text: str) -> Number:
    if sweep.by != "bits":
        amount = amount_of(evidence, sweep.column, text)
    elif (bits := parse_number(text, "an end of")) is not None:
        amount = bits_to_bytes(bits, evidence.weights)
    else:
        raise UserError(f"{text!r} is not a number of bits a weight; give one, such as 4.5")
    if not math.isfinite(amount):
        raise UserError(f"an end of the sweep is {text}; give finite amounts of {sweep.column}")
    return amount


def _least(problem: Problem, column: str, effort: Effort) -> Solution:
    """Solves for the smallest sum of the column within all budgets."""
    return solve(replace(problem, objective={column: 1.0}), replace(effort, gap=0.0))


def _total(problem: Problem, column: str, solution: Solution, effort: Effort, roles: Mapping[str, str]) -> Number:
    """Returns the exact sum of the column. roles: as in `check_solved`. Raises InfeasibleError, UserError."""
    check_solved(problem, solution, effort, roles)
    return exact_total(problem, column, solution.picks)
