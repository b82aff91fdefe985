"""Runs plans on prompts that planning did not use, and compares predicted with measured losses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from bitplan.planner.costs.machine import about_machine
from bitplan.planner.evaluation.evaluator import Evaluator, planned
from bitplan.planner.graph.layers import blocks_of
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.scenes.grammar import scene_of
from bitplan.planner.scenes.reader import shows
from bitplan.planner.texts import plain
from bitplan.planner.units import beside_full, show_bytes
from bitplan.plans.layers.addresses import module_at
from bitplan.plans.layers.modules import weight_bytes
from bitplan.plans.layers.opening import opened
from bitplan.plans.layers.swap import Swap, redo, undo
from bitplan.plans.plan import Plan
from bitplan.sensitivity.runs.exhaustive import measure
from bitplan.sensitivity.runs.outcome import Outcome


@dataclass(frozen=True, eq=False)
class BlockRow:
    """Predicted and measured sums of one block of layers.

    Attributes:
        block: its name.
        layers: number of its layers.
        predicted: column -> sum in the plan.
        measured: the same, measured with the plan in this block alone.
    """

    block: str
    layers: int
    predicted: Mapping[str, float]
    measured: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {name: plain(value) for name, value in vars(self).items()}

    def __str__(self) -> str:
        sums = ", ".join(f"{name} {value:.4g}" for name, value in self.measured.items())
        return f"{self.block}, {self.layers} layers: {sums}"


@dataclass(frozen=True)
class CallTime:
    """The time of one denoiser call.

    Attributes:
        conditions: how many conditions the call is for.
        ms: median milliseconds with the plan.
        full_ms: the same in full precision, measured in turn.
    """

    conditions: int
    ms: float
    full_ms: float

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        ratio = self.ms / self.full_ms
        return {"conditions": self.conditions, "measured": self.ms, "full_precision": self.full_ms, "ratio": ratio}


@dataclass(frozen=True, eq=False)
class PlanResult:
    """The measurements of one variant: a plan or full precision.

    Attributes:
        name: of the variant.
        bytes: of the planned layers' weights in memory.
        times: of a denoiser call for one condition, and for as many as an evaluation runs together if they are
            several; empty for full precision.
        losses: metric -> (mean, standard error).
        accuracy: share of prompts whose picture shows the scene; None where prompts describe no scene.
        outputs: (conditions, ...) of all conditions.
        kind: kind of the outputs.
    """

    name: str
    bytes: int
    times: tuple[CallTime, ...]
    losses: Mapping[str, tuple[float, float]]
    accuracy: float | None
    outputs: torch.Tensor
    kind: str = "images"

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes; outputs are left out."""
        return {name: plain(value) for name, value in vars(self).items() if name != "outputs"}

    def __str__(self) -> str:
        losses = ", ".join(f"{name} {mean:.4g}" for name, (mean, _) in self.losses.items())
        calls = [f"{beside_full(each.ms, each.full_ms)} for {each.conditions} at a time" for each in self.times]
        return ", ".join([f"{self.name}: {show_bytes(self.bytes)}", *calls, losses])


def held_bytes(evaluator: Evaluator, layers: Sequence[str] | None = None) -> int:
    """Returns the bytes of the weights of `layers`, all by default, in memory; shared weights count once."""
    with opened(evaluator.parts):
        modules = {module_at(evaluator.parts, layer) for layer in layers or evaluator.layers}
    shared: dict[object, int] = {}
    for module in modules:
        key = module if hasattr(module, "packed") else module.weight.data_ptr()
        shared[key] = weight_bytes(module)
    return sum(shared.values())


def evaluate_full(evaluator: Evaluator) -> PlanResult:
    """Measures full precision as the plans are measured."""
    outputs, kind = evaluator.replay.reference.outputs, evaluator.replay.reference.kind
    assert outputs is not None
    losses = {metric.name: (0.0, 0.0) for metric in evaluator.metrics.metrics}
    accuracy = scene_accuracy(outputs, evaluator.metrics.texts, kind)
    return PlanResult("full precision", held_bytes(evaluator), (), losses, accuracy, outputs, kind)


def evaluate_plan(evaluator: Evaluator, plan: Plan, kernels: str, name: str, pairs: int = 5) -> PlanResult:
    """Measures the plan's losses against full precision, its bytes, and the times of a denoiser call."""
    calls = evaluator.timed_calls  # recorded in full precision
    with planned(evaluator, plan, kernels) as swapped:
        size, outcome = held_bytes(evaluator), evaluator.replay.run()
        times = tuple(CallTime(count, *paired_ms(call, swapped, pairs)) for count, call in calls.items())
    losses, outputs = _losses(evaluator, outcome), outcome.outputs
    assert outputs is not None
    accuracy = scene_accuracy(outputs, evaluator.metrics.texts, outcome.kind)
    return PlanResult(name, size, times, losses, accuracy, outputs, outcome.kind)


def losses_of(evaluator: Evaluator, plan: Plan, kernels: str) -> dict[str, tuple[float, float]]:
    """Returns metric -> (mean, standard error) of the plan's losses against full precision."""
    return run_plan(evaluator, plan, kernels)[0]


def run_plan(evaluator: Evaluator, plan: Plan, kernels: str) -> tuple[dict[str, tuple[float, float]], torch.Tensor]:
    """Returns the plan's losses against full precision, metric -> (mean, standard error), and its outputs."""
    with planned(evaluator, plan, kernels):
        outcome = evaluator.replay.run()
    assert outcome.outputs is not None
    return _losses(evaluator, outcome), outcome.outputs


def _losses(evaluator: Evaluator, outcome: Outcome) -> dict[str, tuple[float, float]]:
    variants: dict[tuple[str, str], Callable[[], Any]] = {("plan", "plan"): contextlib.nullcontext}
    reference, compared = evaluator.replay.reference, evaluator.metrics
    rows = next(measure(variants, lambda: outcome, reference, compared.metrics, compared.encoder, compared.texts))
    return {row.metric: (row.mean, row.stderr) for row in rows}


def paired_ms(call: Callable[[], object], swapped: Swap, pairs: int) -> tuple[float, float]:
    """Returns the median milliseconds of a call with the plan and in full precision, in turn.

    swapped: the active swap; it is active again afterwards.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(pairs + 1):
        for place, change in enumerate((redo, undo)):
            change(swapped)
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if turn:  # the first pair warms up
                seconds[place].append(elapsed)
    redo(swapped)
    return median(seconds[0]) * 1e3, median(seconds[1]) * 1e3


def scene_accuracy(images: torch.Tensor, prompts: Sequence[str], kind: str = "images") -> float | None:
    """Returns the share of prompts whose image shows the scene, by the scene reader; None for other prompts."""
    scenes = [scene_of(prompt) for prompt in prompts] if kind == "images" else []
    if not scenes or any(scene is None for scene in scenes):
        return None
    pictures = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return float(np.mean([shows(p, s) for p, s in zip(pictures, scenes, strict=True) if s is not None]))


def block_rows(evaluator: Evaluator, plan: Plan, kernels: str) -> list[BlockRow]:
    """Returns the predicted bytes and losses of each block, and those measured with the plan in this block alone."""
    rows = []
    for block, layers in blocks_of(evaluator.layers).items():
        with planned(evaluator, plan, kernels, layers):
            outcome, size = evaluator.replay.run(), held_bytes(evaluator, layers)
        measured = {"bytes": size} | {name: mean for name, (mean, _) in _losses(evaluator, outcome).items()}
        rows.append(BlockRow(block, len(layers), plan.predictions.get("blocks", {}).get(block, {}), measured))
    return rows


def about(evaluator: Evaluator, generation: Generation, kernels: str) -> dict[str, Any]:
    """Returns how an evaluation was made, for its report."""
    return {
        "pipeline": evaluator.subject.name, "kernels": kernels, "prompts": len(evaluator.conditions),
        **generation.to_json(),
        "families": {metric.name: metric.family for metric in evaluator.metrics.metrics}, **about_machine(),
    }  # fmt: skip
