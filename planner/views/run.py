"""Writes and resumes the folder of a sweep: `sweep.json`, `plans/` and `images/`. Imports no torch.

A sweep resumes what it wrote before and refuses a folder with pictures of another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bitplan.planner.choice.record import Provenance, plan_of
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import UserError
from bitplan.planner.files import inside, make_folder
from bitplan.planner.profiles.profile import Cost, Profile, content_digest
from bitplan.planner.views.profile_view import ProfileView, cells_of, columns_of
from bitplan.planner.views.sweep import Sweep, solve_points, sweep_problem, view_of
from bitplan.planner.views.view import VIEW, Variant, View, read_view, write_view
from bitplan.plans.plan import Plan, save_plan
from bitplan.solvers.effort import Effort
from bitplan.solvers.solution import choice_of

PLANS, IMAGES = "plans", "images"  # subfolders beside the view
_OPTIONS = {"real": "kernels", "start": "from", "stop": "to"}  # field -> option of the command, where they differ


def sweep_into(out: Path, store: Profile, data: ProfileView, request: Request, sweep: Sweep, effort: Effort) -> View:
    """Returns the sweep in the folder `out`; solves it and writes each plan unless the folder holds the same sweep.

    request: with pins resolved to layers. Raises UserError where `out` holds pictures of another sweep, ProblemError.
    """
    origin = {"profile": profile_digest(store), "asked": _plain(asdict(sweep) | request.to_json() | effort.to_json())}
    before = view_in(out)
    if before is not None and _is_of(before, origin, data) and _has_plans(before, out):
        return before
    if before is not None and is_painted(before):
        raise UserError(f"{out} holds the pictures of another sweep, {_differs(before.about, origin)}; choose another "
                        "--out, or delete it")  # fmt: skip
    problems = sweep_problem(data, request, sweep, effort)
    make_folder(out / PLANS)
    for point in before.points if before is not None else ():
        if point.plan is not None and Path(point.plan).parent == Path(PLANS):  # as a sweep writes them
            inside(out, point.plan).unlink(missing_ok=True)
    points = []
    for point, problem, solution in solve_points(data, problems, effort):
        if solution.choice is not None:
            point = replace(point, plan=f"{PLANS}/{point.name}.plan.yaml")
            provenance = Provenance(solution, request.pins, request.confidence)
            save_plan(plan_of(store, data.evidence, (problem, solution.choice), provenance), inside(out, point.plan))
        points.append(point)
    view = replace(view_of(data, problems, points, effort, request.real), about=origin)
    write_view(view, out / VIEW)
    return view


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


def profile_digest(store: Profile) -> str:
    """Returns the sha256 (hex) of a profile's header, costs and measurements."""
    costs = [_facts(cost) for cost in store.costs()]
    text = json.dumps([store.header(), costs, content_digest(store)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(cost: Cost) -> list[Any]:
    """Returns the values of a cost; without an error, those of formats that have none, whose digests stay the same."""
    values = [cost.layer, cost.scheme, cost.bytes, cost.ms, cost.kernel, cost.simulated]
    return values if cost.error is None else [*values, cost.error]


def _is_of(view: View, origin: Mapping[str, Any], data: ProfileView) -> bool:
    """Whether the view is of this profile and these settings, and states the profile's layers as they are."""
    same = all(view.about.get(key) == value for key, value in origin.items())
    return same and (view.model, view.columns, view.cells) == (_plain(data.model), columns_of(data), cells_of(data))


def _has_plans(view: View, out: Path) -> bool:
    return all(inside(out, point.plan).is_file() for point in view.points if point.plan)


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
