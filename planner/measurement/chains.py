"""Makes the chain of calls of some conditions, which probes follow backwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from bitplan.planner.errors import UserError
from bitplan.planner.measurement.replay import evenly_spaced
from bitplan.planner.measurement.worker import Worker
from bitplan.planner.pipelines.calling import has_own_calls, settled
from bitplan.planner.pipelines.subject import checked
from bitplan.sensitivity.probes.batches import batched, check_order
from bitplan.sensitivity.probes.chain import Chain
from bitplan.sensitivity.probes.shares import called
from bitplan.sensitivity.probes.unroll import Step, frozen, rehearse, unroll
from bitplan.sensitivity.runs.nested import leaves_of
from bitplan.sensitivity.table import MeasurementError

VISITS = 16  # steps that are differentiated, evenly spaced: all steps of a short sampler
Grows = list[tuple[bool, ...] | None]  # of each step, which of its tensors hold the batch; None: not differentiated


@contextmanager
def chain_of(worker: Worker, conditions: Sequence[Any], first: int, visits: int = VISITS) -> Iterator[Chain]:
    """Within the `with`, gives the unrolled full-precision run of some conditions; no parameter requires gradients.

    Args:
        worker, conditions: what runs, and on what.
        first: the index of the first of them.
        visits: the number of steps of a denoiser that are differentiated.

    Raises:
        UserError: no gradients flow.
        MeasurementError: copies of a batch cannot be put into one call, though there are several conditions.
    """
    settings, subject = worker.setup.settings, worker.subject
    with frozen(subject.modules.values()):
        run, seed = partial(checked, subject), settings.generation.seed + first
        with called({name: worker.module(name) for name in worker.setup.graph.by_address}) as ran:
            steps, result = settled(subject.run, lambda: unroll(worker.stages, lambda: run(conditions, seed)))
        if not result.requires_grad:
            raise UserError(
                f"no gradients flow through {subject.kind} to its outputs; measure with --method exhaustive"
            )
        calls = {index: step.module for index, step in enumerate(steps) if step.module in worker.denoisers}
        larger = partial(run, (*conditions, conditions[0]), seed)
        steps, grows, alone = _copyable(worker, steps, calls, len(conditions), larger)
        readout, chosen = _select(calls, settings.timesteps), _select(calls, visits)
        weights = _weights(steps, {*readout, *chosen}, calls)
        weights = {index: weight for index, weight in weights.items() if grows[index] is not None}
        idle = frozenset(worker.setup.graph.by_address.keys() - ran)
        yield Chain(steps, result, readout, weights, [each or () for each in grows], alone, idle)


def _copyable(
    worker: Worker, steps: list[Step], calls: Mapping[int, nn.Module], samples: int, larger: Callable[[], object]
) -> tuple[list[Step], Grows, bool]:
    """The steps, what grows with the batch, and whether each call can have one sample alone.

    That is so if each condition has its own call, or if the worker has one condition alone, and the run with one sample
    more fails or is another one: a pipeline may be for one condition at a time.
    """
    try:
        rehearsed = rehearse(steps, samples, larger)
        grows = [_batched(step, shapes, index in calls) for index, (step, shapes) in enumerate(rehearsed)]
        if samples == 1:  # it does not show all that depends on the number of samples, so two copies are tried
            for index in {module: index for index, module in reversed(calls.items())}.values():
                check_order(rehearsed[index][0], grows[index] or ())
        return [step for step, _ in rehearsed], grows, False
    except MeasurementError:
        if len(worker.conditions) > 1 and not has_own_calls(worker.subject.run):
            raise
        return steps, [(False,) * len(leaves_of((step.args, step.kwargs))) for step in steps], True


def _select(calls: Mapping[int, nn.Module], count: int) -> tuple[int, ...]:
    """Indices of `count` calls of each module, evenly spaced. calls: index -> module."""
    indices = list(calls)
    return tuple(indices[i] for i in evenly_spaced(list(calls.values()), count))


def _weights(steps: Sequence[Step], chosen: Collection[int], calls: Mapping[int, nn.Module]) -> dict[int, float]:
    """Index of each differentiated step -> the number of steps that it represents.

    Of a denoiser the chosen steps are differentiated, of other modules all.
    """
    total = Counter(calls.values())
    visited = Counter(calls[index] for index in chosen)
    return {
        index: total[step.module] / visited[step.module] if index in calls else 1.0
        for index, step in enumerate(steps)
        if index in chosen or index not in calls
    }


def _batched(step: Step, larger: Sequence[torch.Size], needed: bool) -> tuple[bool, ...] | None:
    """See `batches.batched`; None for a call without a batch that no gradients pass."""
    try:
        return batched(step, larger)
    except MeasurementError:
        if needed or step.inputs:
            raise
        return None
