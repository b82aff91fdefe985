"""The frontier: the best plan at every limit of one column, solved as one job, as a `View`. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bitplan.planner.choice.evidence import Evidence, check_known
from bitplan.planner.choice.limits import amount_of, check_solved, pose
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import UserError
from bitplan.planner.progress import bar
from bitplan.planner.units import SHOW, SPACINGS, bits_to_bytes
from bitplan.planner.views.known import ProfileView, cells_of, columns_of, full_of, solved, uniforms_of
from bitplan.planner.views.view import Variant, View
from bitplan.solvers.certify import exact_total
from bitplan.solvers.problem import Budget, Number, Problem, plain
from bitplan.solvers.questions.frontier import frontier
from bitplan.solvers.solution import Solution
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies import Effort

COLUMNS = {"memory": "bytes", "latency": "ms", "bits": "bytes"}  # what `--by` calls the costs; losses are columns


@dataclass(frozen=True)
class Sweep:
    """What is asked for. by: a name of COLUMNS, or a loss, whose limit varies over `points` places; start, stop: its
    ends, written as budgets are, None for the smallest reachable value and for that of the best plan without a limit;
    spacing: one of SPACINGS, None for even ratios wherever both ends are positive."""

    by: str = "memory"
    points: int = 40
    start: str | None = None
    stop: str | None = None
    spacing: str | None = None

    @property
    def column(self) -> str:
        return COLUMNS.get(self.by, self.by)


@dataclass(frozen=True)
class SweepProblem:
    """The problem without a limit on the column, the limits from the loosest, and the least that the column can get to
    within all other budgets, None where it is not known."""

    problem: Problem
    column: str
    limits: tuple[int | float, ...]
    smallest: Number | None


def pose_sweep(known: ProfileView, request: Request, asked: Sweep, effort: Effort) -> SweepProblem:
    """What is to be solved. request: with its pins on layers. Raises UserError, ProblemError, InfeasibleError."""
    _check_asked(asked)
    check_known(known.evidence, [asked.column])
    problem = pose(known.evidence, request, effort)
    problem.column(asked.column)
    if any(budget.column == asked.column for budget in problem.budgets):
        raise UserError(f"{asked.column} is what the sweep varies, and has a budget besides; leave that out")
    start, stop = (None if text is None else _amount(known.evidence, asked, text) for text in (asked.start, asked.stop))
    smallest = None
    if start is None:
        start = smallest = _total(problem, asked.column, _least(problem, asked.column, effort), effort)
    if stop is None:
        best = solve(problem, time_limit=effort.time_limit, gap=effort.gap, backend=effort.backend)
        stop = _total(problem, asked.column, best, effort)
    if start == stop and not (asked.start and asked.stop):
        show = SHOW.get(asked.column, "{:.6g}".format)
        raise UserError(f"both ends of the sweep are at {show(float(start))} of {asked.column}: the best plan has the "
                        "least of it already; give another budget or --objective, or both --from and --to")  # fmt: skip
    return SweepProblem(problem, asked.column, limits_between(plain(start), plain(stop), asked), smallest)


def solve_points(
    known: ProfileView, posed: SweepProblem, effort: Effort
) -> Iterator[tuple[Variant, Problem, Solution]]:
    """Each limit from the loosest: what is seen, and the problem that was solved. Raises ProblemError, BackendError."""
    problem, column = posed.problem, posed.column
    found = frontier(problem, column, posed.limits, time_limit=effort.time_limit, gap=effort.gap,
                     backend=effort.backend)  # fmt: skip
    for number, solution in bar(found, "limits", len(posed.limits), "limit"):
        limit = plain(number)
        bounded = replace(problem, budgets=(*problem.budgets, Budget(column, limit)))
        yield solved(known, name_of(column, limit), solution, limit), bounded, solution


def view_of(known: ProfileView, posed: SweepProblem, points: Sequence[Variant], effort: Effort, real: bool) -> View:
    """All that there is to see. real: uniform plans are of what a kernel runs."""
    smallest = posed.smallest
    if smallest is None and not all(point.picks for point in points):
        least = _least(posed.problem, posed.column, effort)
        smallest = None if least.choice is None else exact_total(posed.problem, posed.column, least.picks)
    return View(
        model=known.model, by=posed.column, weights=dict(posed.problem.objective),
        budgets={budget.column: plain(budget.limit) for budget in posed.problem.budgets},
        smallest=None if smallest is None else plain(smallest), columns=columns_of(known), cells=cells_of(known),
        points=tuple(points), uniform=uniforms_of(known, real), full=full_of(known),
    )  # fmt: skip


def limits_between(start: float, stop: float, asked: Sweep) -> tuple[int | float, ...]:
    """From the loosest to the tightest, each once: both ends as they are, between them whole bytes."""
    low, high = sorted((start, stop))
    if asked.spacing == "log" and low <= 0:
        raise UserError(f"there are no even ratios from {low:g} to {high:g}; give a --from above 0, or "
                        "--spacing linear")  # fmt: skip
    log = low > 0 and asked.spacing != "linear"
    shares = [i / (asked.points - 1) for i in range(1, asked.points - 1)]
    between = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    if asked.column == "bytes":
        between = [int(limit) for limit in between]
    return tuple(sorted({low, high, *(limit for limit in between if low < limit < high)}, reverse=True))


def name_of(column: str, limit: float) -> str:
    """What a point and its files are called."""
    text = str(limit) if isinstance(limit, int) else format(limit, ".9g")
    return "".join(c if c.isalnum() or c in "-_.+" else "_" for c in f"{column}-{text}")


def _check_asked(asked: Sweep) -> None:
    if asked.points < 2:
        raise UserError(f"a sweep of {asked.points} points has no two ends; ask for --points of at least 2")
    if asked.spacing not in (None, *SPACINGS):
        raise UserError(f"there is no spacing {asked.spacing!r}; choose {' or '.join(SPACINGS)}")


def _amount(evidence: Evidence, asked: Sweep, text: str) -> Number:
    try:
        bits = float(text) if asked.by == "bits" else None
    except ValueError:
        raise UserError(f"{text!r} are no mean bits a weight; give a number, such as 4.5") from None
    found = amount_of(evidence, asked.column, text) if bits is None else bits_to_bytes(bits, evidence.weights)
    if not math.isfinite(found):
        raise UserError(f"an end of the sweep is {text}; give finite amounts of {asked.column}")
    return found


def _least(problem: Problem, column: str, effort: Effort) -> Solution:
    """The smallest sum of the column within all budgets."""
    return solve(replace(problem, objective={column: 1.0}), time_limit=effort.time_limit, backend=effort.backend)


def _total(problem: Problem, column: str, solution: Solution, effort: Effort) -> Number:
    """The column's sum, exact. Raises InfeasibleError, UserError."""
    check_solved(problem, solution, effort)
    return exact_total(problem, column, solution.picks)
