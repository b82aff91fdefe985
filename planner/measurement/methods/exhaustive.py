"""Measures one change of one layer at a time, everything else in full precision."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.resume import resumable, run_from
from bitplan.planner.measurement.worker import Worker
from bitplan.planner.texts import one_line
from bitplan.sensitivity.runs.exhaustive import measure_layers
from bitplan.sensitivity.runs.outcome import Outcome
from bitplan.sensitivity.shortage import is_shortage

WORTHWHILE = 2  # measurements a layer: resuming saves a quarter of each, recording takes as long as several


def measure(worker: Worker, job: Job) -> Iterator[JobResult]:
    """Run the replay once for each pair of the job, with half of the conditions a run after each that memory does not
    suffice for. Raises MeasurementError, and ShortageError where one condition needs too much."""
    left = list(job.pairs)
    while left:
        try:
            for result in _measured(worker, replace(job, pairs=tuple(left))):
                left.remove(result.pair)
                yield result
        except Exception as error:
            if not is_shortage(error) or not (size := worker.halve()):
                raise
            print(f"{one_line(error)}; measuring goes on with runs of {size}", file=sys.stderr)


def _measured(worker: Worker, job: Job) -> Iterator[JobResult]:
    packed: dict[Any, Any] = {}  # weights that schemes of one layer share
    variants = {pair: partial(worker.variant, *pair, packed) for pair in job.pairs}
    metric_set = worker.metric_set
    measured = measure_layers(
        variants, _runner(worker, job), worker.replay.reference, metric_set.metrics, metric_set.encoder,
        metric_set.texts,
    )  # fmt: skip
    for rows in measured:
        yield JobResult((rows[0].layer, rows[0].scheme), tuple(rows))


def _runner(worker: Worker, job: Job) -> Callable[[str], Outcome]:
    """A run that resumes at the changed layer, or the whole replay where recording costs more than it saves."""
    modules = {layer: worker.module(layer) for layer in job.layers}
    if len(job.pairs) < WORTHWHILE * len(modules):
        return lambda _: worker.replay.run()
    safe = resumable(worker.recorded_replay, dict.fromkeys(modules.values()))
    return lambda layer: (
        run_from(worker.recorded_replay, modules[layer]) if modules[layer] in safe else worker.replay.run()
    )
