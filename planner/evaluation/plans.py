"""Predicted beside measured: run plans on prompts that planning never saw."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from bitplan.planner.applied.pipeline import fitted_in, schemes_of
from bitplan.planner.costs.machine import about_machine
from bitplan.planner.graph.fingerprint import module_at
from bitplan.planner.graph.layers import blocks_of, component_of
from bitplan.planner.graph.stages import stage_modules
from bitplan.planner.measurement.replay import Replay, build_replay
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.metrics import MetricSet, judge_of
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.pipelines.traced import examine
from bitplan.planner.scenes.grammar import scene_of
from bitplan.planner.scenes.reader import shows
from bitplan.plans.layers.modules import weight_bytes
from bitplan.plans.layers.opening import opened
from bitplan.plans.layers.swap import Swap, redo, swap, undo
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import Scheme
from bitplan.sensitivity.runs.exhaustive import measure
from bitplan.sensitivity.runs.outcome import Outcome


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A subject in full precision with a measuring rig on evaluation prompts."""

    parts: Mapping[str, nn.Module]
    rig: Replay
    judge: MetricSet
    conditions: tuple[Any, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class BlockRow:
    """One block of layers: what the plan predicts for it, and what was measured with the plan in it alone."""

    block: str
    layers: int
    predicted: Mapping[str, float]
    measured: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class PlanResult:
    """What one variant measured. bytes: of the planned layers' weights as held; ms: of one denoiser call over that of
    full precision's, paired; losses: metric -> (mean, standard error); accuracy: share of prompts shown, or None where
    they describe no scene; outputs: of all prompts; kind: what they are."""

    name: str
    bytes: int
    ms: float
    full_ms: float
    losses: Mapping[str, tuple[float, float]]
    accuracy: float | None
    outputs: torch.Tensor
    kind: str = "images"


def build_bench(
    subject: Subject, layers: Sequence[str], conditions: Sequence[Any], seed: int, own: Sequence[str] = (),
    clip: str | None = None,
) -> Evaluator:  # fmt: skip
    """Record the full-precision trajectory of the evaluation prompts. own, clip: see `judging.judge_of`."""
    traced = examine(subject, conditions, seed, tuple(dict.fromkeys(component_of(layer) for layer in layers)))
    denoisers = stage_modules(subject.modules, traced.denoisers).values()
    rig = build_replay(subject, denoisers, conditions, seed, timesteps=4)
    judge = judge_of(subject, rig.reference.kind, conditions, own, clip)
    return Evaluator(traced.parts, rig, judge, tuple(conditions), tuple(layers))


@contextlib.contextmanager
def planned(bench: Evaluator, plan: Plan, kernels: str, only: Sequence[str] | None = None) -> Iterator[Swap]:
    """For the length of the `with`, the plan's schemes in all layers or in those of `only`."""
    schemes: dict[str, Scheme] = {a: s for a, s in schemes_of(plan).items() if only is None or a in only}
    swapped = swap(bench.parts, schemes, fitted_in(plan), real=kernels == "int")
    try:
        yield swapped
    finally:
        undo(swapped)


def held_bytes(bench: Evaluator, layers: Sequence[str] | None = None) -> int:
    """Bytes of the weights of `layers`, all by default, as the modules hold them now; one held twice counts once."""
    with opened(bench.parts):
        modules = {module_at(bench.parts, layer) for layer in layers or bench.layers}
    shared: dict[object, int] = {}
    for module in modules:
        key = module if hasattr(module, "packed") else module.weight.data_ptr()
        shared[key] = weight_bytes(module)
    return sum(shared.values())


def evaluate_full(bench: Evaluator) -> PlanResult:
    """Full precision, by the same means as the plans."""
    outputs, kind = bench.rig.reference.outputs, bench.rig.reference.kind
    assert outputs is not None
    losses = {metric.name: (0.0, 0.0) for metric in bench.judge.metrics}
    accuracy = scene_accuracy(outputs, bench.judge.texts, kind)
    return PlanResult("full precision", held_bytes(bench), 1.0, 1.0, losses, accuracy, outputs, kind)


def evaluate_plan(bench: Evaluator, plan: Plan, kernels: str, name: str, pairs: int = 5) -> PlanResult:
    """Losses against full precision, bytes held, and the time of a denoiser call with real kernels."""
    with planned(bench, plan, kernels) as swapped:
        size, outcome = held_bytes(bench), bench.rig.run()
        ms, full = paired_ms(bench, swapped, pairs)
    losses, outputs = _losses(bench, outcome), outcome.outputs
    assert outputs is not None
    accuracy = scene_accuracy(outputs, bench.judge.texts, outcome.kind)
    return PlanResult(name, size, ms, full, losses, accuracy, outputs, outcome.kind)


def losses_of(bench: Evaluator, plan: Plan, kernels: str) -> dict[str, tuple[float, float]]:
    """Metric -> (mean, standard error) of the plan against full precision."""
    return run_plan(bench, plan, kernels)[0]


def run_plan(bench: Evaluator, plan: Plan, kernels: str) -> tuple[dict[str, tuple[float, float]], torch.Tensor]:
    """The plan's losses against full precision, metric -> (mean, standard error), and its outputs."""
    with planned(bench, plan, kernels):
        outcome = bench.rig.run()
    assert outcome.outputs is not None
    return _losses(bench, outcome), outcome.outputs


def _losses(bench: Evaluator, outcome: Outcome) -> dict[str, tuple[float, float]]:
    variants: dict[tuple[str, str], Callable[[], Any]] = {("plan", "plan"): contextlib.nullcontext}
    judge = bench.judge
    rows = next(measure(variants, lambda: outcome, bench.rig.reference, judge.metrics, judge.encoder, judge.texts))
    return {row.metric: (row.mean, row.stderr) for row in rows}


def paired_ms(bench: Evaluator, swapped: Swap, pairs: int) -> tuple[float, float]:
    """Median milliseconds of one denoiser call on all prompts, with the plan and in full precision, taken in turn.

    swapped: in place now, and again afterwards.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(pairs + 1):
        for place, put in enumerate((redo, undo)):
            put(swapped)
            start = time.perf_counter()
            bench.rig.call()
            spent = time.perf_counter() - start
            if turn:  # the first pair warms up
                seconds[place].append(spent)
    redo(swapped)
    return median(seconds[0]) * 1e3, median(seconds[1]) * 1e3


def scene_accuracy(images: torch.Tensor, prompts: Sequence[str], kind: str = "images") -> float | None:
    """Share of the prompts whose picture shows what was asked, by the scene reader; None for other prompts."""
    scenes = [scene_of(prompt) for prompt in prompts] if kind == "images" else []
    if not scenes or any(scene is None for scene in scenes):
        return None
    pictures = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return float(np.mean([shows(p, s) for p, s in zip(pictures, scenes, strict=True) if s is not None]))


def block_rows(bench: Evaluator, plan: Plan, kernels: str) -> list[BlockRow]:
    """Each block: bytes and losses predicted by the plan, and measured with the plan in this block alone."""
    rows = []
    for block, layers in blocks_of(bench.layers).items():
        with planned(bench, plan, kernels, layers):
            outcome, size = bench.rig.run(), held_bytes(bench, layers)
        measured = {"bytes": size} | {name: mean for name, (mean, _) in _losses(bench, outcome).items()}
        rows.append(BlockRow(block, len(layers), plan.predictions.get("blocks", {}).get(block, {}), measured))
    return rows


def conditions(pipeline: str, generation: Generation, kernels: str, bench: Evaluator) -> dict[str, Any]:
    """How an evaluation was made, for its report."""
    return {
        "pipeline": pipeline, "kernels": kernels, "prompts": len(bench.conditions), **generation.told(),
        "families": {metric.name: metric.family for metric in bench.judge.metrics}, **about_machine(),
    }  # fmt: skip
