"""Paints with the plans of a sweep and measures their losses, all on the same held-out prompts and seeds."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bitplan.planner.costs.machine import about_machine
from bitplan.planner.errors import UserError
from bitplan.planner.evaluation.evaluator import Evaluator, EvaluatorOptions, open_evaluator
from bitplan.planner.evaluation.plans import run_plan
from bitplan.planner.files import inside, make_folder
from bitplan.planner.interrupts import keeps
from bitplan.planner.pipelines.conditions import labels_of
from bitplan.planner.pipelines.generation import Generation, generation_in
from bitplan.planner.pipelines.outputs import save_small, to_picture
from bitplan.planner.pipelines.references import read_names
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.progress import bar
from bitplan.planner.views.profile_view import ProfileView
from bitplan.planner.views.run import IMAGES, is_painted, plan_for
from bitplan.planner.views.view import VIEW, Variant, View, spread_indices, write_view

COUNT = 16  # default number of prompts that losses are measured on
Losses = Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True, eq=False)
class SweepPaintOptions:
    """Options of painting.

    Attributes:
        pipeline: a name as `load_subject` takes it, or a subject.
        images: number of conditions whose pictures are stored.
        points: number of limits that are painted; None for all.
        conditions: the user's conditions; None for held-out ones.
        count: number of conditions that losses are measured on; None for COUNT.
        seed: condition i uses the noise of seed + i.
        kernels: `int` or `fake`.
        clip: folder or hub id of the CLIPModel; None for the profile's.
        trust: whether the profile's own metrics may be imported.
        variant: variant of the weights' files; None for the profile's.
    """

    pipeline: str | Subject
    images: int
    points: int | None = None
    conditions: Sequence[Any] | None = None
    count: int | None = None
    seed: int = 1000
    kernels: str = "int"
    clip: str | None = None
    trust: bool = False
    variant: str | None = None


def paint_view(view: View, out: Path, store: Profile, data: ProfileView, options: SweepPaintOptions) -> View:
    """Adds pictures and measured losses to the view and rewrites it in the folder `out` after each plan.

    Plans that were painted before are skipped. Raises UserError where they were painted with other options, PlanError
    for a pipeline that is not the profile's.
    """
    settings = store.header()["settings"]
    clip = options.clip or settings.get("clip")
    metrics = read_names(settings.get("metrics", ()), store.path, options.trust)
    painting = _identity(options, clip)
    _check_same(view, painting, out)
    todo = [one for one in (view.full, *order(view, options.points)) if not _is_done(one, out)]
    if not todo:
        return view
    opened = EvaluatorOptions(
        options.pipeline, _generation(settings, options.seed), options.conditions,
        max(options.count or COUNT, options.images), metrics, clip, variant=options.variant,
    )  # fmt: skip
    evaluator = open_evaluator(opened, [plan_for(store, data, view.full)])
    chosen = evaluator.conditions
    view = replace(
        view, conditions=tuple(map(_text, labels_of(chosen[: options.images]))),
        about=dict(view.about) | {"painting": painting, "measured on": len(chosen), "machine": about_machine()},
    )  # fmt: skip
    for variant in _told(todo, out):
        losses, outputs = _run(evaluator, store, data, (variant, options.kernels))
        pictures = save_pictures(out, variant.name, outputs[: options.images], evaluator.replay.reference.kind)
        view = _with(view, variant.picks, losses, pictures)
        write_view(view, out / VIEW)
    return view


def _told(todo: Sequence[Variant], out: Path) -> Iterator[Variant]:
    """Yields the variants to paint, and states how many are painted."""
    for painted, variant in enumerate(bar(todo, "plans", len(todo), "plan")):
        keeps(f"{painted} of {len(todo)} plans are painted in {out}, and the same command continues from there")
        yield variant


def _check_same(view: View, painting: Mapping[str, Any], out: Path) -> None:
    """Raises UserError where the view was painted with other options."""
    old = view.about.get("painting", {})
    names = [name for name, value in painting.items() if old.get(name) != value]
    if is_painted(view) and names:
        raise UserError(f"{out} holds pictures of other {' and '.join(names)}; choose another --out, or delete it")


def _is_done(variant: Variant, out: Path) -> bool:
    return variant.measured is not None and all(inside(out, name).is_file() for name in variant.pictures)


def order(view: View, points: int | None = None) -> list[Variant]:
    """Returns the variants to paint, one for each distinct plan, without full precision.

    These are the plans of `points` limits, or of all, and the uniform plans within the frontier's range of bytes. Both
    ends come first, then the middle of each gap.
    """
    distinct = {point.picks: point for point in view.points if point.picks and point.picks != view.full.picks}
    frontier = list(distinct.values())
    if points is not None:
        frontier = [frontier[index] for index in spread_indices(len(frontier), points)]
    sizes = [point.totals["bytes"] for point in view.points if point.picks]
    chosen = {point.picks: point for point in frontier}
    for one in view.uniform:
        if sizes and min(sizes) <= one.totals["bytes"] <= max(sizes):
            chosen.setdefault(one.picks, one)
    ordered = sorted(chosen.values(), key=lambda one: one.totals[view.by])
    return [ordered[index] for index in bisection_order(len(ordered))]


def bisection_order(count: int) -> list[int]:
    """Returns 0 to `count` - 1: both ends, then the middle of each gap."""
    indices = list(dict.fromkeys((0, count - 1))) if count else []
    gaps = deque([(0, count - 1)])
    while gaps:
        low, high = gaps.popleft()
        if high - low > 1:
            middle = (low + high) // 2
            indices.append(middle)
            gaps += [(low, middle), (middle, high)]
    return indices


def _identity(options: SweepPaintOptions, clip: str | None) -> dict[str, Any]:
    """Returns the options that pictures and losses depend on, as JSON values."""
    name = options.pipeline if isinstance(options.pipeline, str) else options.pipeline.name
    labels = None if options.conditions is None else list(labels_of(options.conditions))
    fields = {
        key: value for key, value in asdict(replace(options, pipeline=name)).items() if key not in ("points", "trust")
    }
    return json.loads(json.dumps(fields | {"count": options.count or COUNT, "conditions": labels, "clip": clip}))


def _generation(settings: Mapping[str, Any], seed: int) -> Generation:
    """Returns the profile's generation settings with another seed."""
    return generation_in(settings.get("generation", {}), seed=seed)


def _run(
    evaluator: Evaluator, store: Profile, data: ProfileView, request: tuple[Variant, str]
) -> tuple[Losses, Tensor]:
    variant, kernels = request
    if variant.picks == (0,) * len(variant.picks):
        outputs = evaluator.replay.reference.outputs
        assert outputs is not None
        return {metric.name: (0.0, 0.0) for metric in evaluator.metrics.metrics}, outputs
    losses, outputs = run_plan(evaluator, plan_for(store, data, variant), kernels)
    return {name: (mean, error if math.isfinite(error) else None) for name, (mean, error) in losses.items()}, outputs


def save_pictures(out: Path, name: str, outputs: Tensor, kind: str) -> tuple[str, ...]:
    """Writes one picture for each image, or for the middle frame of each video, below `out`; none for other kinds."""
    if kind == "video":
        outputs = outputs[:, outputs.shape[1] // 2]
    elif kind != "images":
        return ()
    folder = f"{IMAGES}/{name.replace(' ', '-')}"
    make_folder(inside(out, folder))
    return tuple(save_small(to_picture(one), out, f"{folder}/{i}.webp") for i, one in enumerate(outputs))


def _with(view: View, picks: tuple[int, ...], losses: Losses, pictures: tuple[str, ...]) -> View:
    """Returns the view with the losses and pictures of one plan in every variant of it."""

    def updated(one: Variant) -> Variant:
        return replace(one, measured=dict(losses), pictures=pictures) if one.picks == picks else one

    points, uniform = tuple(map(updated, view.points)), tuple(map(updated, view.uniform))
    return replace(view, points=points, uniform=uniform, full=updated(view.full))


def _text(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
