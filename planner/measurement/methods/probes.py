"""Estimates all schemes of all layers at once from a few backward passes through the sampler.

The mathematics is in `bitplan.sensitivity.probes.estimate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bitplan.planner.measurement.chains import chain_of
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.worker import Worker
from bitplan.planner.progress import current
from bitplan.plans.layers.simulation import output_changes
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.metrics import Metric
from bitplan.sensitivity.probes.backward import Changes
from bitplan.sensitivity.probes.chain import Chain, Probes, draw
from bitplan.sensitivity.probes.estimate import join_responses, probe
from bitplan.sensitivity.responses import Reading

MEMORY = 4 * 2**30  # bytes of layer outputs that one call of the denoiser may hold for its backward pass
DENOISED_SHARE = 2  # the denoiser's output has several samples a prompt, so it needs so many times fewer probes


def measure(worker: Worker, job: Job) -> Iterator[JobResult]:
    """Yield the responses of the job's conditions to each pair.

    They are 0 for a layer that runs on none of these conditions. A layer that runs on rows whose samples are not known,
    such as one input for all of them, has none. Raises UserError, MeasurementError.
    """
    first, last = job.prompts
    metric_set = worker.metric_set
    with chain_of(worker, worker.conditions[first:last], first) as chain:
        encoder = metric_set.encoder
        texts = encoder.text(metric_set.texts[first:last]) if encoder and metric_set.texts else None
        probes = [draw_probes(worker, chain, metric, first, texts) for metric in metric_set.metrics if metric.probe]
        layers = {layer: worker.module(layer) for layer in job.layers}
        rows = _rows_per_call(worker, chain)
        with checkpointed(worker.stages, rows < max(step.rows for step in chain.steps)):
            by_step = {}
            for index, responses in probe(chain, layers, changes_by_layer(worker, job), probes, rows):
                by_step[index] = responses
                current().hint(job.size / len(chain.weights))
        readings = {each.metric: _reading(worker, chain, each, first) for each in probes}
    sums = join_responses(chain, by_step, probes)
    zeros = {
        each.metric: torch.zeros(each.count, len(readings[each.metric].clusters), dtype=torch.float32, device="cpu")
        for each in probes
    }
    for pair in job.pairs:
        idle = pair[0] in chain.idle
        arrays = {metric: whole.numpy() for metric, whole in (zeros if idle else sums.get(pair, {})).items()}
        yield JobResult(pair, (), job.prompts, arrays, readings, idle)


def try_backward(worker: Worker, chain: Chain, probes: Sequence[Probes]) -> None:
    """Run the backward pass of the last call of each module, for no layers. Raises MeasurementError where there is
    none."""
    last = {chain.steps[index].module: index for index in sorted(chain.weights)}
    short = replace(chain, weights={index: chain.weights[index] for index in last.values()})
    with checkpointed(worker.stages, _rows_per_call(worker, chain) < max(step.rows for step in chain.steps)):
        for _ in probe(short, {}, {}, probes, 1):
            pass


@contextmanager
def checkpointed(modules: Iterable[Any], enabled: bool) -> Iterator[None]:
    """Within the `with`, the modules that support it use gradient checkpointing, if it is `enabled`.

    Then only the inputs of their blocks are held for the backward pass. Each block runs again when its gradients are
    computed, which is when the hooks of its layers see them.
    """
    able = [m for m in modules if getattr(m, "_supports_gradient_checkpointing", False)] if enabled else []
    for module in able:
        module.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=True))
    try:
        yield
    finally:
        for module in able:
            module.disable_gradient_checkpointing()


def draw_probes(worker: Worker, chain: Chain, metric: Metric, first: int, texts: Tensor | None) -> Probes:
    """Draw the probes of a metric from its own generator, so that they depend on neither the job's layers nor the
    other metrics."""
    settings = worker.setup.settings
    place = [each.name for each in worker.metric_set.metrics].index(metric.name)
    generator = torch.Generator().manual_seed((settings.generation.seed * 1009 + first) * 1009 + place)
    count = settings.probes if metric.reads != "denoised" else -(-settings.probes // DENOISED_SHARE)
    return draw(chain, metric, count, generator, worker.metric_set.encoder, texts)


def changes_by_layer(worker: Worker, job: Job) -> dict[str, Changes]:
    """Layer -> a function from the layer's input to the output changes of its schemes in this job."""
    by_layer: dict[str, list[tuple[str, object]]] = {}
    for layer, text in job.pairs:
        scheme = parse_scheme(text)
        by_layer.setdefault(layer, []).append((scheme, worker.setup.fitted(layer, scheme)))

    def changes_of(layer: str) -> Changes:
        grids = worker.grids(layer)
        module, schemes = worker.module(layer), by_layer[layer]

        def changes(x: Tensor) -> Iterator[tuple[str, Tensor]]:
            return ((str(scheme), change) for scheme, change in output_changes(module, x, schemes, grids))

        return changes

    return {layer: changes_of(layer) for layer in by_layer}


def _rows_per_call(worker: Worker, chain: Chain) -> int:
    """The number of batch rows that fit in one call, by the size of the traced layers' outputs for one sample."""
    outputs = sum(prod(call.output) for layer in worker.setup.graph.layers for call in layer.calls)
    output = chain.steps[chain.readout[0]].output
    traced = len(output) / len(chain.result)  # rows of the traced run: one sample with its guidance
    bytes_per_row = outputs / traced * output.element_size()
    return int(MEMORY / max(bytes_per_row, 1))


def _reading(worker: Worker, chain: Chain, probes: Probes, first: int) -> Reading:
    samples = range(first, first + len(chain.result))
    if probes.propagates:
        signed = next(metric.signed for metric in worker.metric_set.metrics if metric.name == probes.metric)
        return Reading((0,) * len(samples), tuple(samples), signed)
    rows = [(i, owner) for i in chain.readout for owner in chain.owners[i] or (0,) * chain.steps[i].rows]
    return Reading(tuple(index for index, _ in rows), tuple(samples[owner] for _, owner in rows), False)
