"""One (layer, scheme) changed at a time, everything else in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from planner.methods.base import Found, Job
from planner.station import Station
from sensitivity.exhaustive import measure as measure_losses


def measure(station: Station, job: Job) -> Iterator[Found]:
    """One run of the rig for each pair of the job. Raises MeasurementError."""
    packed: dict[Any, Any] = {}  # weights that schemes of one layer share
    variants = {pair: partial(station.variant, *pair, packed) for pair in job.pairs}
    rig, prompts = station.rig, station.context.settings.prompts
    for rows in measure_losses(variants, rig.run, rig.reference, encoder=station.encoder, prompts=prompts):
        yield Found(tuple(rows))
