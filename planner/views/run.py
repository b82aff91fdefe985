"""The folder of a sweep: `sweep.json`, `plans/` and `images/`. What is there already is taken up, never mixed with what
belongs to something else. Imports no torch."""

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
from bitplan.planner.files import make_folder
from bitplan.planner.profiles.profile import Profile, content_digest
from bitplan.planner.views.known import ProfileView
from bitplan.planner.views.sweep import Sweep, pose_sweep, solve_points, view_of
from bitplan.planner.views.view import VIEW, Variant, View, read_view, write_view
from bitplan.plans.plan import Plan, save_plan
from bitplan.solvers.solution import choice_of
from bitplan.solvers.strategies import Effort

PLANS, IMAGES = "plans", "images"  # what a run's folder holds beside the view
_WORDS = {"real": "kernels", "start": "from", "stop": "to"}  # what the command calls them


def sweep_into(out: Path, store: Profile, known: ProfileView, request: Request, asked: Sweep, effort: Effort) -> View:
    """The sweep in the folder `out`: as it lies there where that is the same, else solved, each plan in a file.

    request: with its pins on layers. Raises UserError where pictures of another sweep lie there, ProblemError.
    """
    origin = {"profile": profile_digest(store), "asked": _plain(asdict(asked) | request.to_json() | asdict(effort))}
    before = view_in(out)
    if before is not None and _is_of(before, origin) and _has_plans(before, out):
        return before
    if before is not None and is_painted(before):
        raise UserError(f"{out} holds the pictures of another sweep, {_differs(before.about, origin)}; choose another "
                        "--out, or delete it")  # fmt: skip
    posed = pose_sweep(known, request, asked, effort)
    make_folder(out / PLANS)
    for point in before.points if before is not None else ():
        if point.plan:
            (out / point.plan).unlink(missing_ok=True)
    points = []
    for point, problem, solution in solve_points(known, posed, effort):
        if solution.choice is not None:
            point = replace(point, plan=f"{PLANS}/{point.name}.plan.yaml")
            told = Provenance(solution, request.pins, request.confidence)
            save_plan(plan_of(store, known.evidence, (problem, solution.choice), told), out / str(point.plan))
        points.append(point)
    view = replace(view_of(known, posed, points, effort, request.real), about=origin)
    write_view(view, out / VIEW)
    return view


def view_in(out: Path) -> View | None:
    """What an earlier run left, None where there is nothing, or nothing that can be read: it is then made anew."""
    try:
        return read_view(out / VIEW)
    except UserError:
        return None


def is_painted(view: View) -> bool:
    """Whether anything of the view was painted or measured."""
    return any(variant.measured is not None for variant in (view.full, *view.points, *view.uniform))


def plan_for(store: Profile, known: ProfileView, variant: Variant) -> Plan:
    """The plan of what is seen, without a word on how it was found."""
    layers = [cell for cell in known.graph.by_address if cell in known.evidence.offered]
    scheme_of = {layer: known.evidence.offered[layer][pick] for layer, pick in zip(layers, variant.picks, strict=True)}
    picks = tuple(known.problem.index(group, scheme_of[members[0]]) for group, members in known.groups.items())
    return plan_of(store, known.evidence, (known.problem, choice_of(known.problem, picks)), Provenance(None))


def profile_digest(store: Profile) -> str:
    """sha256 (hex) of all that a profile says: of which model, what was measured, and what it costs."""
    costs = [list(asdict(cost).values()) for cost in store.costs()]
    text = json.dumps([store.header(), costs, content_digest(store)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_of(view: View, origin: Mapping[str, Any]) -> bool:
    return all(view.about.get(key) == value for key, value in origin.items())


def _has_plans(view: View, out: Path) -> bool:
    return all((out / point.plan).is_file() for point in view.points if point.plan)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def _differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what two sweeps differ."""
    if before.get("profile") != now["profile"]:
        return "of another profile"
    old = before.get("asked", {})
    names = [_WORDS.get(name, name) for name, value in now["asked"].items() if old.get(name) != value]
    return f"of another {' and '.join(names) or 'version'}"
