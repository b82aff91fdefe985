"""One (layer, scheme) changed at a time, everything else in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.resume import proven, run_from
from bitplan.planner.measurement.worker import Worker
from bitplan.sensitivity.runs.exhaustive import measure_layers
from bitplan.sensitivity.runs.outcome import Outcome

WORTHWHILE = 2  # measurements a layer: resuming saves a quarter of each, recording takes as long as several


def measure(station: Worker, job: Job) -> Iterator[JobResult]:
    """One run of the rig for each pair of the job. Raises MeasurementError."""
    packed: dict[Any, Any] = {}  # weights that schemes of one layer share
    variants = {pair: partial(station.variant, *pair, packed) for pair in job.pairs}
    measured = measure_layers(
        variants, _runner(station, job), station.rig.reference, station.judge.metrics, station.judge.encoder,
        station.judge.texts,
    )  # fmt: skip
    for rows in measured:
        yield JobResult((rows[0].layer, rows[0].scheme), tuple(rows))


def _runner(station: Worker, job: Job) -> Callable[[str], Outcome]:
    """From where the changed layer first acts; the whole run where recording that would cost more than it saves."""
    modules = {layer: station.module(layer) for layer in job.layers}
    if len(job.pairs) < WORTHWHILE * len(modules):
        return lambda _: station.rig.run()
    safe = proven(station.recorded, dict.fromkeys(modules.values()))
    return lambda layer: run_from(station.recorded, modules[layer]) if modules[layer] in safe else station.rig.run()
