"""What the plans of a sweep paint, and what they lose, on the same held-out prompts and seeds."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bitplan.planner.applied.pipeline import check_model
from bitplan.planner.costs.machine import about_machine
from bitplan.planner.errors import UserError
from bitplan.planner.evaluation.plans import Evaluator, build_bench, run_plan
from bitplan.planner.files import make_folder
from bitplan.planner.pipelines.conditions import labels_of
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.outputs import save_small, to_picture
from bitplan.planner.pipelines.sources import float_components, load_subject
from bitplan.planner.pipelines.subject import Subject, conditions_of
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.progress import bar
from bitplan.planner.views.known import ProfileView
from bitplan.planner.views.run import IMAGES, is_painted, plan_for
from bitplan.planner.views.table import places
from bitplan.planner.views.view import VIEW, Variant, View, write_view

COUNT = 16  # prompts that losses are measured on, where nothing is said
Losses = Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True, eq=False)
class PaintJob:
    """What is asked for. images: so many of the conditions are kept as pictures; points: so many limits are painted,
    all where None; conditions: given ones, None for held-out ones; count: conditions to measure on, None for COUNT."""

    pipeline: str | Subject
    images: int
    points: int | None = None
    conditions: Sequence[Any] | None = None
    count: int | None = None
    seed: int = 1000
    kernels: str = "int"
    clip: str | None = None


def paint_view(view: View, out: Path, store: Profile, known: ProfileView, job: PaintJob) -> View:
    """The view with pictures and measured losses, rewritten in the folder `out` after each plan; what is there already
    is kept. Raises UserError where that is of other prompts, PlanError for a pipeline that is not the profile's."""
    settings = store.header()["settings"]
    clip = job.clip or settings.get("clip")
    painting = _identity(job, clip)
    _check_same(view, painting, out)
    todo = [one for one in (view.full, *order(view, job.points)) if not _is_done(one, out)]
    if not todo:
        return view
    subject = load_subject(job.pipeline, _generation(settings, job.seed), known.model.get("dtype", "float32"))
    plan = plan_for(store, known, view.full)
    check_model(plan, float_components(subject, plan.model["components"]), allow_mismatch=False)
    chosen = conditions_of(subject, job.conditions, max(job.count or COUNT, job.images), held_out=True)
    bench = build_bench(subject, list(plan.schemes), chosen, job.seed, settings.get("metrics", ()), clip)
    view = replace(
        view, conditions=tuple(map(_text, labels_of(chosen[: job.images]))),
        about=dict(view.about) | {"painting": painting, "measured on": len(chosen), "machine": about_machine()},
    )  # fmt: skip
    for variant in bar(todo, "plans", len(todo), "plan"):
        losses, outputs = _run(bench, store, known, (variant, job.kernels))
        pictures = save_pictures(out, variant.name, outputs[: job.images], bench.rig.reference.kind)
        view = _with(view, variant.picks, losses, pictures)
        write_view(view, out / VIEW)
    return view


def _check_same(view: View, painting: Mapping[str, Any], out: Path) -> None:
    """Raises UserError where something else was painted before."""
    old = view.about.get("painting", {})
    names = [name for name, value in painting.items() if old.get(name) != value]
    if is_painted(view) and names:
        raise UserError(f"{out} holds pictures of other {' and '.join(names)}; choose another --out, or delete it")


def _is_done(variant: Variant, out: Path) -> bool:
    return variant.measured is not None and all((out / name).is_file() for name in variant.pictures)


def order(view: View, points: int | None = None) -> list[Variant]:
    """One variant of each plan to be painted: of so many limits, or all, and the uniform ones of no fewer and no more
    bytes than the frontier; the ends first, then what is between, ever more finely. Full precision is left out."""
    found = {point.picks: point for point in view.points if point.picks and point.picks != view.full.picks}
    frontier = list(found.values())
    if points is not None:
        frontier = [frontier[place] for place in places(len(frontier), points)]
    sizes = [point.totals["bytes"] for point in view.points if point.picks]
    chosen = {point.picks: point for point in frontier}
    for one in view.uniform:
        if sizes and min(sizes) <= one.totals["bytes"] <= max(sizes):
            chosen.setdefault(one.picks, one)
    along = sorted(chosen.values(), key=lambda one: one.totals[view.by])
    return [along[place] for place in spread(len(along))]


def spread(count: int) -> list[int]:
    """0 .. count - 1: both ends, then the middle of each gap."""
    found = list(dict.fromkeys((0, count - 1))) if count else []
    gaps = deque([(0, count - 1)])
    while gaps:
        low, high = gaps.popleft()
        if high - low > 1:
            middle = (low + high) // 2
            found.append(middle)
            gaps += [(low, middle), (middle, high)]
    return found


def _identity(job: PaintJob, clip: str | None) -> dict[str, Any]:
    """What pictures and losses depend on beside the plan; JSON values."""
    name = job.pipeline if isinstance(job.pipeline, str) else job.pipeline.name
    labels = None if job.conditions is None else list(labels_of(job.conditions))
    given = {key: value for key, value in asdict(replace(job, pipeline=name)).items() if key != "points"}
    return json.loads(json.dumps(given | {"count": job.count or COUNT, "conditions": labels, "clip": clip}))


def _generation(settings: Mapping[str, Any], seed: int) -> Generation:
    """As the profile was made, with other noise."""
    return Generation(**dict(settings["generation"]) | {"seed": seed})


def _run(bench: Evaluator, store: Profile, known: ProfileView, asked: tuple[Variant, str]) -> tuple[Losses, Tensor]:
    variant, kernels = asked
    if variant.picks == (0,) * len(variant.picks):
        outputs = bench.rig.reference.outputs
        assert outputs is not None
        return {metric.name: (0.0, 0.0) for metric in bench.judge.metrics}, outputs
    losses, outputs = run_plan(bench, plan_for(store, known, variant), kernels)
    return {name: (mean, error if math.isfinite(error) else None) for name, (mean, error) in losses.items()}, outputs


def save_pictures(out: Path, name: str, outputs: Tensor, kind: str) -> tuple[str, ...]:
    """Pictures of images, and of the middle frames of films, one an output, as files below `out`; of all else none."""
    if kind == "video":
        outputs = outputs[:, outputs.shape[1] // 2]
    elif kind != "images":
        return ()
    folder = f"{IMAGES}/{name.replace(' ', '-')}"
    make_folder(out / folder)
    return tuple(save_small(to_picture(one), out, f"{folder}/{i}.webp") for i, one in enumerate(outputs))


def _with(view: View, picks: tuple[int, ...], losses: Losses, pictures: tuple[str, ...]) -> View:
    """The view with what was found of one plan, wherever it stands."""

    def told(one: Variant) -> Variant:
        return replace(one, measured=dict(losses), pictures=pictures) if one.picks == picks else one

    points, uniform = tuple(map(told, view.points)), tuple(map(told, view.uniform))
    return replace(view, points=points, uniform=uniform, full=told(view.full))


def _text(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
