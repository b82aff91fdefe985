"""All schemes of all layers at once, from a few backward passes through the sampler: see
`bitplan.sensitivity.probes.estimate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bitplan.planner.costs.candidates import fitted_of
from bitplan.planner.errors import UserError
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.replay import kept_places
from bitplan.planner.measurement.worker import Worker
from bitplan.planner.pipelines.subject import checked
from bitplan.planner.progress import current
from bitplan.plans.layers.simulation import output_changes
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.metrics import Metric
from bitplan.sensitivity.probes.estimate import Chain, Changes, Probes, draw, joined, probe
from bitplan.sensitivity.probes.unroll import Step, batched, frozen, rehearse, unroll
from bitplan.sensitivity.responses import Reading
from bitplan.sensitivity.table import MeasurementError

MEMORY = 4 * 2**30  # bytes of layer outputs that one call of the denoiser may hold for its backward pass
VISITS = 16  # steps that are differentiated, evenly spaced: all of a sampler of few steps
DENOISED_SHARE = 2  # the denoiser's output has several samples a prompt: so many times fewer probes do for it


def measure(station: Worker, job: Job) -> Iterator[JobResult]:
    """The responses of the job's conditions to every pair of it; none for a layer that nothing of the subject runs as a
    part of a whole batch, or runs on one input for all. Raises UserError, MeasurementError."""
    first, last = job.prompts
    conditions = station.conditions[first:last]
    with chain_of(station, conditions, first) as chain:
        judge = station.judge
        texts = judge.encoder.text(judge.texts[first:last]) if judge.encoder and judge.texts else None
        probes = [drawn(station, chain, metric, first, texts) for metric in judge.metrics if metric.probe]
        layers = {layer: station.module(layer) for layer in job.layers}
        rows = _rows(station, chain)
        with checkpointed(station.stages, rows < max(step.rows for step in chain.steps)):
            steps = probe(chain, layers, changes_by_layer(station, job), probes, rows)
            found = {}
            for place, change in steps:
                found[place] = change
                current().hint(job.size / len(chain.visited))
        readings = {mine.metric: _reading(station, chain, mine, first) for mine in probes}
    sums = joined(chain, found, probes)
    for pair in job.pairs:
        responses = {metric: whole.numpy() for metric, whole in sums.get(pair, {}).items()}
        yield JobResult(pair, (), job.prompts, responses, readings)


@contextmanager
def chain_of(station: Worker, conditions: Sequence[Any], first: int, visits: int = VISITS) -> Iterator[Chain]:
    """The full-precision run of the conditions, which are those from the `first` on, unrolled; while in the `with` no
    weight asks for gradients. visits: steps of a denoiser that are differentiated. Raises UserError where no gradients
    flow, MeasurementError where calls cannot be told apart."""
    settings, subject = station.context.settings, station.subject
    with frozen(subject.modules.values()):
        run, seed = partial(checked, subject), settings.generation.seed + first
        steps, result = unroll(station.stages, lambda: run(conditions, seed))
        if not result.requires_grad:
            raise UserError(
                f"no gradients flow through {subject.kind} to its outputs; measure with --method exhaustive"
            )
        rehearsed = rehearse(steps, len(conditions), lambda: run((*conditions, conditions[0]), seed))
        steps = [step for step, _ in rehearsed]
        denoisers = frozenset(station.denoisers)
        calls = {place: step.module for place, step in enumerate(steps) if step.module in denoisers}
        kept, visited = _among(calls, settings.timesteps), _among(calls, visits)
        grows = {place: _batched(step, larger, place in calls) for place, (step, larger) in enumerate(rehearsed)}
        stand_for = {place: share for place, share in _shares(steps, {*kept, *visited}, calls).items() if grows[place]}
        yield Chain(steps, result, kept, stand_for, [grows[place] or () for place in grows], denoisers)


def _among(calls: Mapping[int, nn.Module], count: int) -> tuple[int, ...]:
    """Of each module's calls so many, evenly spaced. calls: place -> module."""
    places = list(calls)
    return tuple(places[i] for i in kept_places(list(calls.values()), count))


def _shares(steps: Sequence[Step], chosen: Collection[int], calls: Mapping[int, nn.Module]) -> dict[int, float]:
    """Each step that is differentiated, with how many it stands for: of a denoiser's those chosen, else all."""
    of_module = Counter(calls.values())
    visited = Counter(calls[place] for place in chosen)
    return {
        place: of_module[step.module] / visited[step.module] if place in calls else 1.0
        for place, step in enumerate(steps)
        if place in chosen or place not in calls
    }


def _batched(step: Step, larger: Sequence[torch.Size], needed: bool) -> tuple[bool, ...] | None:
    """See `unroll.batched`; None for a call that has no batch and that no gradients need to pass."""
    try:
        return batched(step, larger)
    except MeasurementError:
        if needed or step.inputs:
            raise
        return None


@contextmanager
def checkpointed(modules: Iterable[Any], wanted: bool) -> Iterator[None]:
    """While in the `with`, if wanted and where the models can, only the inputs of their blocks are held for the
    backward pass, and each block is run again when its turn comes, which is when its layers are seen."""
    able = [m for m in modules if getattr(m, "_supports_gradient_checkpointing", False)] if wanted else []
    for module in able:
        module.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=True))
    try:
        yield
    finally:
        for module in able:
            module.disable_gradient_checkpointing()


def drawn(station: Worker, chain: Chain, metric: Metric, first: int, texts: Tensor | None) -> Probes:
    """Of its own generator, so that neither the chunk of layers nor the other metrics matter."""
    settings = station.context.settings
    place = [its.name for its in station.judge.metrics].index(metric.name)
    generator = torch.Generator().manual_seed((settings.generation.seed * 1009 + first) * 1009 + place)
    count = settings.probes if metric.reads != "denoised" else -(-settings.probes // DENOISED_SHARE)
    return draw(chain, metric, count, generator, station.judge.encoder, texts)


def changes_by_layer(station: Worker, job: Job) -> dict[str, Changes]:
    """layer -> what its schemes of this job change in its output."""
    ranges = station.context.ranges
    by_layer: dict[str, list[tuple[str, object]]] = {}
    for layer, text in job.pairs:
        scheme = parse_scheme(text)
        by_layer.setdefault(layer, []).append((scheme, fitted_of(ranges[layer], scheme)))

    def changes_of(layer: str) -> Changes:
        grids = station.grids(layer)
        module, schemes = station.module(layer), by_layer[layer]

        def changes(x: Tensor) -> Iterator[tuple[str, Tensor]]:
            return ((str(scheme), change) for scheme, change in output_changes(module, x, schemes, grids))

        return changes

    return {layer: changes_of(layer) for layer in by_layer}


def _rows(station: Worker, chain: Chain) -> int:
    """How many rows of the batch one call may have, by the size of what the traced layers put out for one sample."""
    outputs = sum(prod(call.output) for layer in station.context.graph.layers for call in layer.calls)
    output = chain.steps[chain.kept[0]].output
    traced = len(output) / len(chain.result)  # rows of the traced run: one sample, guidance and all
    bytes_a_row = outputs / traced * output.element_size()
    return int(MEMORY / max(bytes_a_row, 1))


def _reading(station: Worker, chain: Chain, mine: Probes, first: int) -> Reading:
    samples = range(first, first + len(chain.result))
    if mine.follows:
        signed = next(metric.signed for metric in station.judge.metrics if metric.name == mine.metric)
        return Reading((0,) * len(samples), tuple(samples), signed)
    rows = [(place, row) for place in chain.kept for row in range(chain.steps[place].rows)]
    owners = tuple(samples[row % len(samples)] for _, row in rows)
    return Reading(tuple(place for place, _ in rows), owners, False)
