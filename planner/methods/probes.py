"""All schemes of all layers at once, from a few backward passes through the sampler: see `sensitivity.probes`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from planner.errors import UserError
from planner.measure import kept_places
from planner.methods.base import Found, Job
from planner.pipelines import generate_with_graph
from planner.space import scales_of
from planner.station import Station
from plans.changes import output_changes
from plans.scheme import parse_scheme
from sensitivity.metrics import METRICS, Metric
from sensitivity.probes import Chain, Changes, Probes, draw, joined, probe
from sensitivity.responses import Reading
from sensitivity.unroll import batched, first_shapes, frozen, unroll

MEMORY = 4 * 2**30  # bytes of layer outputs that one call of the denoiser may hold for its backward pass
VISITS = 16  # steps that are differentiated, evenly spaced: all of a sampler of few steps
DENOISED_SHARE = 2  # the denoiser's output has several samples a prompt: so many times fewer probes do for it


def measure(station: Station, job: Job) -> Iterator[Found]:
    """The responses of the job's prompts to every pair of it; none for a layer that the denoiser does not run, or runs
    on one input for the whole batch. Raises UserError, MeasurementError."""
    first, last = job.prompts
    prompts = station.context.settings.prompts[first:last]
    with chain_of(station, prompts, first) as chain:
        texts = station.encoder.text(prompts)
        probes = [drawn(station, chain, metric, first, texts) for metric in METRICS.values() if metric.probe]
        layers = {layer: station.module(layer) for layer in job.layers}
        rows = _rows(station, chain)
        with checkpointed(station.denoiser, rows < chain.steps[0].rows):
            steps = probe(chain, layers, changes_by_layer(station, job), probes, rows)
            found = dict(tqdm(steps, "probes", len(chain.visited), unit="step", leave=False))
        readings = {mine.metric: _reading(chain, mine, first) for mine in probes}
    sums = joined(chain, found, probes)
    for pair in job.pairs:
        responses = {metric: whole.numpy() for metric, whole in sums.get(pair, {}).items()}
        yield Found(pair, (), job.prompts, responses, readings)


@contextmanager
def chain_of(station: Station, prompts: tuple[str, ...], first: int, visits: int = VISITS) -> Iterator[Chain]:
    """The full-precision run of the prompts, which are those from the `first` on, unrolled; while in the `with` no
    weight asks for gradients. visits: steps that are differentiated. Raises UserError where no gradients flow,
    MeasurementError where calls cannot be told apart."""
    settings, pipe = station.context.settings, station.pipe
    with frozen(part for part in pipe.components.values() if isinstance(part, nn.Module)):
        run = partial(generate_with_graph, pipe, generation=settings.generation, first=first)
        larger = first_shapes(station.denoiser, lambda: run((*prompts, prompts[0])))
        steps, images = unroll(station.denoiser, lambda: run(prompts))
        if not images.requires_grad:
            kind = type(pipe).__name__
            raise UserError(f"no gradients flow through {kind} to its images; measure with --method exhaustive")
        kept = kept_places(len(steps), settings.timesteps)
        visited = tuple(sorted({*kept, *kept_places(len(steps), visits)}))
        yield Chain(station.denoiser, steps, images, kept, visited, batched(steps, larger))


@contextmanager
def checkpointed(denoiser: Any, wanted: bool) -> Iterator[None]:
    """While in the `with`, if wanted and where the model can, only the inputs of its blocks are held for the backward
    pass, and each block is run again when its turn comes, which is when its layers are seen."""
    if not (wanted and getattr(denoiser, "_supports_gradient_checkpointing", False)):
        yield
        return
    denoiser.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=True))
    try:
        yield
    finally:
        denoiser.disable_gradient_checkpointing()


def drawn(station: Station, chain: Chain, metric: Metric, first: int, texts: Tensor) -> Probes:
    """Of its own generator, so that neither the chunk of layers nor the other metrics matter."""
    settings = station.context.settings
    place = list(METRICS).index(metric.name)
    generator = torch.Generator().manual_seed((settings.generation.seed * 1009 + first) * 1009 + place)
    count = settings.probes if metric.reads != "denoised" else -(-settings.probes // DENOISED_SHARE)
    return draw(chain, metric, count, generator, station.encoder, texts)


def changes_by_layer(station: Station, job: Job) -> dict[str, Changes]:
    """layer -> what its schemes of this job change in its output."""
    ranges = station.context.ranges
    by_layer: dict[str, list[tuple[str, object]]] = {}
    for layer, text in job.pairs:
        scheme = parse_scheme(text)
        by_layer.setdefault(layer, []).append((scheme, scales_of(ranges[layer], scheme)))

    def changes_of(layer: str) -> Changes:
        grids = station.grids(layer)
        module, schemes = station.module(layer), by_layer[layer]

        def changes(x: Tensor) -> Iterator[tuple[str, Tensor]]:
            return ((str(scheme), change) for scheme, change in output_changes(module, x, schemes, grids))

        return changes

    return {layer: changes_of(layer) for layer in by_layer}


def _rows(station: Station, chain: Chain) -> int:
    """How many rows of the batch one call may have, by the size of what the traced layers put out for one image."""
    outputs = sum(prod(call.output) for layer in station.context.graph.layers for call in layer.calls)
    traced = len(chain.steps[0].output) / len(chain.images)  # rows of the traced run: one image, guidance and all
    bytes_a_row = outputs / traced * chain.steps[0].output.element_size()
    return int(MEMORY / max(bytes_a_row, 1))


def _reading(chain: Chain, mine: Probes, first: int) -> Reading:
    prompts = range(first, first + len(chain.images))
    if mine.follows:
        return Reading((0,) * len(prompts), tuple(prompts), METRICS[mine.metric].signed)
    rows = [(place, row) for place in chain.kept for row in range(chain.steps[place].rows)]
    owners = tuple(prompts[row % len(prompts)] for _, row in rows)
    return Reading(tuple(place for place, _ in rows), owners, False)
