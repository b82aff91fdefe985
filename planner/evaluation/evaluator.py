"""Opens a pipeline for evaluating plans on prompts that planning did not use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from bitplan.planner.applied.binding import Binding, bind
from bitplan.planner.files import PathLike
from bitplan.planner.graph.layers import component_of
from bitplan.planner.measurement.repeats import check_repeats
from bitplan.planner.measurement.replay import Replay, build_replay
from bitplan.planner.pipelines.additions import eagerly
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.metrics import MetricSet, choose_metrics
from bitplan.planner.pipelines.references import check_typed
from bitplan.planner.pipelines.sources import float_components, load_subject
from bitplan.planner.pipelines.subject import Subject, conditions_of
from bitplan.planner.pipelines.traced import examine, examine_all
from bitplan.planner.pipelines.weights import weights_for
from bitplan.plans.layers.addresses import module_at
from bitplan.plans.layers.swap import Swap, undo
from bitplan.plans.plan import Plan


@dataclass(frozen=True, eq=False)
class EvaluatorOptions:
    """What plans are evaluated on.

    Attributes:
        pipeline: a name as `load_subject` takes it, or a subject.
        generation: how the pipeline is called; condition i uses the noise of its seed + i.
        conditions: the user's conditions; None for held-out ones.
        count: number of held-out conditions.
        metrics: names or references of more metrics.
        clip: folder or hub id of the CLIPModel; None for the pipeline's own.
        allow_mismatch: whether plans may be of other weights of the same architecture.
        folder: folder for weights instead of memory; None for memory.
        variant: variant of the weights' files; None for that of the plans.
    """

    pipeline: str | Subject
    generation: Generation
    conditions: Sequence[Any] | None
    count: int
    metrics: Sequence[str] = ()
    clip: str | None = None
    allow_mismatch: bool = False
    folder: PathLike | None = None
    variant: str | None = None


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A subject in full precision whose denoiser calls on evaluation conditions are recorded.

    Attributes:
        subject: the loaded subject.
        parts: component -> module, of the plans' layers.
        replay: the recorded calls, and the outputs in full precision.
        metrics: the metrics of the outputs.
        conditions: the evaluation conditions.
        layers: addresses of the planned layers.
        denoisers: the modules whose calls are recorded.
        seed: condition i uses the noise of seed + i.
    """

    subject: Subject
    parts: Mapping[str, nn.Module]
    replay: Replay
    metrics: MetricSet
    conditions: tuple[Any, ...]
    layers: tuple[str, ...]
    denoisers: tuple[nn.Module, ...]
    seed: int

    @cached_property
    def timed_calls(self) -> dict[int, Callable[[], object]]:
        """Number of conditions -> the first call of a denoiser for them: for one, as a user calls the pipeline, then
        for as many as the replay runs together. Recorded on first use, when all layers must be in full precision."""
        with eagerly():
            alone = build_replay(self.subject, self.denoisers, self.conditions[:1], self.seed, 1, 1)
        return {1: alone.call, self.replay.together: self.replay.call} if self.replay.together > 1 else {1: alone.call}


def open_subject(options: EvaluatorOptions, plans: Sequence[Plan]) -> tuple[Subject, list[Any]]:
    """Loads the pipeline, checks that the plans fit it, and returns it with the conditions to run on.

    Raises UserError, and as `bitplan.planner.applied.binding.bind`.
    """
    weights = weights_for(plans, options.variant, options.folder)
    subject = load_subject(options.pipeline, options.generation, weights)
    for plan in plans:
        bind(plan, float_components(subject, plan.model["components"]), options.allow_mismatch)
    return subject, conditions_of(subject, options.conditions, options.count, held_out=True)


def open_evaluator(options: EvaluatorOptions, plans: Sequence[Plan]) -> Evaluator:
    """Opens the evaluator of plans of the same layers. Raises as `open_subject`."""
    check_typed(*options.metrics)
    subject, conditions = open_subject(options, plans)
    seed, layers = options.generation.seed, [layer for plan in plans for layer in plan.schemes]
    return build_evaluator(subject, list(dict.fromkeys(layers)), conditions, seed, options.metrics, options.clip)


def build_evaluator(
    subject: Subject, layers: Sequence[str], conditions: Sequence[Any], seed: int, own: Sequence[str] = (),
    clip: str | None = None,
) -> Evaluator:  # fmt: skip
    """Records the full-precision trajectory of the conditions. own, clip: see `metrics.choose_metrics`."""
    names = tuple(dict.fromkeys(component_of(layer) for layer in layers))
    traced = examine(subject, conditions, seed, names)
    if not set(layers) <= set(traced.graph.by_address):  # other conditions may run them
        traced = examine_all(subject, conditions, seed, names)
    check_repeats(traced, conditions[0], seed)
    denoisers = tuple(module_at(subject.modules, address) for address in traced.denoisers)
    metrics = choose_metrics(subject, traced.output, conditions, own, clip, traced.sample)
    with eagerly():
        replay = build_replay(subject, denoisers, conditions, seed, 4, traced.batch)
    return Evaluator(subject, traced.parts, replay, metrics, tuple(conditions), tuple(layers), denoisers, seed)


@contextmanager
def planned(
    evaluator: Evaluator, plan: Plan, kernels: str, only: Collection[str] | None = None
) -> Iterator[Swap]:  # fmt: skip
    """For the length of the `with`, the plan's schemes are in all layers or in those of `only`."""
    swapped = Binding(plan, evaluator.parts).swap(kernels == "int", only)
    try:
        with eagerly():
            yield swapped
    finally:
        undo(swapped)
