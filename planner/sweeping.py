"""The frontier: the best plan at every limit of one column, as a table and as JSON. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tabulate import tabulate

from planner.errors import UserError
from planner.formulate import Evidence, check_known, shown_columns
from planner.recording import Told, plain, plan_of
from planner.solving import SHOW, Request, amount_of, pose, read_evidence, settled
from planner.store import Profile
from plans.plan import save_plan
from solvers.frontier import frontier
from solvers.problem import Budget, Problem
from solvers.solution import Solution
from solvers.solve import solve
from solvers.strategies import Effort


@dataclass(frozen=True)
class Sweep:
    """column: the one whose limit varies, evenly from `start` to `stop`, written as people do, at `count` places."""

    column: str
    start: str
    stop: str
    count: int


@dataclass(frozen=True)
class Point:
    """The best at one limit. objective, bound, gap, totals: None where there is no choice, or nothing is proven; plan:
    name of its plan file, where one was asked for."""

    limit: float
    status: str
    objective: float | None
    bound: float | None
    gap: float | None
    totals: Mapping[str, float] | None
    plan: str | None


@dataclass(frozen=True)
class Frontier:
    """points: from the loosest limit to the tightest; smallest: what the column can get to within all other budgets,
    None where there is no choice at all or it is not known; weights: of the objective; budgets: the other ones; shown:
    the columns of the table."""

    column: str
    weights: Mapping[str, float]
    budgets: Mapping[str, float]
    smallest: float | None
    points: tuple[Point, ...]
    shown: tuple[str, ...]

    def __str__(self) -> str:
        show = SHOW.get(self.column, "{:.6g}".format)
        rows = [_row((self.column, *self.shown), show(point.limit), point) for point in self.points]
        text = str(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
        missed = sum(point.objective is None for point in self.points)
        if missed:
            least = "is not known" if self.smallest is None else f"is {show(self.smallest)}"
            text += (
                f"\n{missed} of {len(self.points)} limits have no plan; the smallest reachable {self.column} {least}"
            )
        return text


def sweep(store: Profile, request: Request, asked: Sweep, effort: Effort, plans: Path | None = None) -> Frontier:
    """The frontier, each point with its own bound. plans: a folder for the plan files, made where it is missing.

    Raises UserError, ProblemError, InfeasibleError.
    """
    evidence = read_evidence(store, request.confidence)
    request = settled(evidence, request)
    check_known(evidence, [asked.column])
    problem = pose(evidence, request, effort)
    problem.column(asked.column)
    if any(budget.column == asked.column for budget in problem.budgets):
        raise UserError(f"{asked.column} is what the frontier varies, and has a budget besides; leave that out")
    if plans is not None:
        _make(plans)
    points, missed = [], False
    limits = _limits(evidence, asked)
    for limit, solution in frontier(problem, asked.column, limits, time_limit=effort.time_limit, gap=effort.gap,
                                    backend=effort.backend):  # fmt: skip
        bounded = replace(problem, budgets=(*problem.budgets, Budget(asked.column, limit)))
        missed |= solution.choice is None
        name = _save(store, evidence, (bounded, solution), request, plans)
        points.append(_point(plain(limit), solution, name))
    smallest = _smallest(problem, asked.column, effort) if missed else None
    others = {budget.column: plain(budget.limit) for budget in problem.budgets}
    return Frontier(asked.column, dict(problem.objective), others, smallest, tuple(points), shown_columns(evidence))


def write_frontier(found: Frontier, out: Path) -> None:
    """The frontier as JSON. Raises UserError where it cannot be written."""
    try:
        out.write_text(json.dumps(asdict(found), indent=1) + "\n", "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None


def _limits(evidence: Evidence, asked: Sweep) -> list[int | float]:
    """Even steps, both ends included; whole bytes."""
    if asked.count < 2:
        raise UserError(f"a frontier of {asked.count} limits has no two ends; ask for a --count of at least 2")
    start, stop = (float(amount_of(evidence, asked.column, text)) for text in (asked.start, asked.stop))
    if not (math.isfinite(start) and math.isfinite(stop)):
        raise UserError(f"--from {asked.start} and --to {asked.stop} must be finite amounts of {asked.column}")
    steps = [start + (stop - start) * i / (asked.count - 1) for i in range(asked.count - 1)]
    whole = asked.column == "bytes"
    return [int(limit) if whole else limit for limit in (*steps, stop)]


def _point(limit: float, solution: Solution, name: str | None) -> Point:
    bound = solution.bound if math.isfinite(solution.bound) else None
    if solution.choice is None:
        return Point(limit, str(solution.status), None, bound, None, None, None)
    gap = solution.gap if math.isfinite(solution.gap) else None
    return Point(limit, str(solution.status), solution.objective, bound, gap, dict(solution.totals), name)


def _save(
    store: Profile, evidence: Evidence, answer: tuple[Problem, Solution], request: Request, plans: Path | None
) -> str | None:
    problem, solution = answer
    if plans is None or solution.choice is None:
        return None
    column, limit = problem.budgets[-1].column, plain(problem.budgets[-1].limit)
    path = plans / f"{column}-{limit if isinstance(limit, int) else format(limit, '.9g')}.plan.yaml"
    told = Told(solution, request.pins, request.confidence)
    save_plan(plan_of(store, evidence, (problem, solution.choice), told), path)
    return path.name


def _smallest(problem: Problem, column: str, effort: Effort) -> float | None:
    found = solve(replace(problem, objective={column: 1.0}), time_limit=effort.time_limit, backend=effort.backend)
    return None if found.choice is None else found.totals[column]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --plans") from None


def _row(columns: tuple[str, ...], limit: str, point: Point) -> dict[str, str]:
    column, *shown = columns
    row = {f"{column} at most": limit, "status": point.status}
    if point.objective is None:
        return row
    row["objective"] = f"{point.objective:.6g}"
    row["gap"] = "-" if point.gap is None else f"{point.gap:.2g}"
    totals = point.totals or {}
    return row | {name: SHOW.get(name, "{:.4g}".format)(totals[name])
                  for name in shown if name in totals}  # fmt: skip
