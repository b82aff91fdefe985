"""Writes and resumes the folder of a sweep: `sweep.json`, `plans/` and `images/`. Imports no torch.

A sweep continues what it wrote before and refuses a folder with pictures of another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bitplan.planner.choice.record import Provenance, plan_of
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import UserError
from bitplan.planner.files import inside, make_folder
from bitplan.planner.interrupts import keeps
from bitplan.planner.profiles.digests import profile_digest
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.views.profile_view import ProfileView, cells_of, columns_of
from bitplan.planner.views.sweep import Sweep, SweepProblem, solve_points, sweep_problem, view_of
from bitplan.planner.views.view import VIEW, Variant, View, read_view, write_view
from bitplan.plans.plan import Plan, save_plan
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.solution import Solution, choice_of

UNSOLVED = "limits not solved"  # key of `about` in the view of an interrupted sweep
PLANS, IMAGES = "plans", "images"  # subfolders beside the view
_OPTIONS = {"real": "kernels", "start": "from", "stop": "to"}  # field -> option of the command, where they differ


def sweep_into(out: Path, store: Profile, data: ProfileView, request: Request, sweep: Sweep, effort: Effort) -> View:
    """Returns the sweep in the folder `out`; solves what the folder does not hold of it, and writes each plan.

    request: with pins resolved to layers. Raises UserError where `out` holds pictures of another sweep, ProblemError.
    """
    origin = {"profile": profile_digest(store), "asked": _plain(asdict(sweep) | request.to_json() | effort.to_json())}
    before = view_in(out)
    same = before is not None and _is_of(before, origin, data) and _has_plans(before, out)
    if before is not None and same and UNSOLVED not in before.about:
        return before
    if before is not None and not same and is_painted(before):
        raise UserError(f"{out} holds the pictures of another sweep, {_differs(before.about, origin)}; choose another "
                        "--out, or delete it")  # fmt: skip
    if before is not None and same:
        _keep(out, before)
    problems = sweep_problem(data, request, sweep, effort)
    make_folder(out / PLANS)
    if before is not None and not same:
        _remove_plans(before, out)
    known = {point.limit: point for point in before.points} if before is not None and same else {}
    solving = _Solving(out, store, data, request, effort)
    points = _solved(solving, problems, known, origin)
    view = replace(view_of(data, problems, points, effort, request.real), about=origin)
    write_view(view, out / VIEW)
    return view


@dataclass(frozen=True, eq=False)
class _Solving:
    """Where and how a sweep is solved; the fields are the arguments of `sweep_into`."""

    out: Path
    store: Profile
    data: ProfileView
    request: Request
    effort: Effort


def _solved(
    solving: _Solving, problems: SweepProblem, known: Mapping[float | None, Variant], origin: Mapping[str, Any]
) -> list[Variant]:
    """Returns the points of all limits: the known ones, and the others, whose plans are written as they are found.

    The view is written where this is interrupted, so that the next run knows the points that were found.
    """
    found = dict(known)
    todo = replace(problems, limits=tuple(limit for limit in problems.limits if limit not in known))
    try:
        for point, problem, solution in solve_points(solving.data, todo, solving.effort):
            if solution.choice is not None:
                point = _with_plan(solving, point, problem, solution)
            found[point.limit] = point
            keeps(f"the plans of {len(found)} of {len(problems.limits)} limits are written in {solving.out}")
    except BaseException:
        # an infeasible point would be explained first, which takes a while: it is solved again
        points = [one for one in found.values() if one.picks]
        if points:
            view = view_of(solving.data, problems, points, solving.effort, solving.request.real)
            view = replace(view, about={**origin, UNSOLVED: len(problems.limits) - len(points)})
            write_view(view, solving.out / VIEW)
            _keep(solving.out, view)
        raise
    return [found[limit] for limit in problems.limits]


def _with_plan(solving: _Solving, point: Variant, problem: Problem, solution: Solution) -> Variant:
    """Returns the point with its plan, which is written."""
    assert solution.choice is not None
    point = replace(point, plan=f"{PLANS}/{point.name}.plan.yaml")
    provenance = Provenance(solution, solving.request.pins, solving.request.confidence)
    plan = plan_of(solving.store, solving.data.evidence, (problem, solution.choice), provenance)
    save_plan(plan, inside(solving.out, point.plan))
    return point


def _keep(out: Path, view: View) -> None:
    unsolved = view.about.get(UNSOLVED, 0)
    keeps(f"the plans of {len(view.points)} of {len(view.points) + unsolved} limits are kept in {out}, and the same "
          "command continues from there")  # fmt: skip


def _remove_plans(view: View, out: Path) -> None:
    for point in view.points:
        if point.plan is not None and Path(point.plan).parent == Path(PLANS):  # as a sweep writes them
            inside(out, point.plan).unlink(missing_ok=True)


def view_in(out: Path) -> View | None:
    """Returns the view in the folder, or None where there is none or it cannot be read."""
    try:
        return read_view(out / VIEW)
    except UserError:
        return None


def is_painted(view: View) -> bool:
    """Returns whether any plan of the view was painted or measured."""
    return any(variant.measured is not None for variant in (view.full, *view.points, *view.uniform))


def plan_for(store: Profile, data: ProfileView, variant: Variant) -> Plan:
    """Returns the plan of a variant, without the provenance of a solution."""
    layers = [cell for cell in data.graph.by_address if cell in data.evidence.offered]
    scheme_of = {layer: data.evidence.offered[layer][pick] for layer, pick in zip(layers, variant.picks, strict=True)}
    picks = tuple(data.problem.index(group, scheme_of[members[0]]) for group, members in data.groups.items())
    return plan_of(store, data.evidence, (data.problem, choice_of(data.problem, picks)), Provenance(None))


def _is_of(view: View, origin: Mapping[str, Any], data: ProfileView) -> bool:
    """Whether the view is of this profile and these settings, and states the profile's layers as they are."""
    same = all(view.about.get(key) == value for key, value in origin.items())
    return same and (view.model, view.columns, view.cells) == (_plain(data.model), columns_of(data), cells_of(data))


def _has_plans(view: View, out: Path) -> bool:
    return all(point.plan and inside(out, point.plan).is_file() for point in view.points if point.picks)


def _plain(value: Any) -> Any:
    """Returns the value after a round trip through JSON."""
    return json.loads(json.dumps(value))


def _differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns the names of the settings in which two sweeps differ."""
    if before.get("profile") != now["profile"]:
        return "of another profile"
    old = before.get("asked", {})
    names = [_OPTIONS.get(name, name) for name, value in now["asked"].items() if old.get(name) != value]
    return f"of another {' and '.join(names) or 'version'}"
