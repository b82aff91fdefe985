"""One (layer, scheme) changed at a time, everything else in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from planner.methods.base import Found, Job
from planner.resuming import run_from
from planner.station import Station
from sensitivity.exhaustive import measure_layers


def measure(station: Station, job: Job) -> Iterator[Found]:
    """One run of the rig for each pair of the job, from where its layer first acts. Raises MeasurementError."""
    packed: dict[Any, Any] = {}  # weights that schemes of one layer share
    variants = {pair: partial(station.variant, *pair, packed) for pair in job.pairs}
    measured = measure_layers(
        variants,
        lambda layer: run_from(station.recorded, station.module(layer)),
        station.rig.reference,
        encoder=station.encoder,
        prompts=station.context.settings.prompts,
    )
    for rows in measured:
        yield Found((rows[0].layer, rows[0].scheme), tuple(rows))
