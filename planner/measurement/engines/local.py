"""Jobs one after the other in this process, on the pipeline that is loaded already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bitplan.planner.measurement.engines.base import Cluster
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.worker import Worker, WorkerSetup


def missing(site: Cluster) -> None:
    """It is always there."""


def run(context: WorkerSetup, jobs: Sequence[Job], here: Callable[[], Worker], site: Cluster) -> Iterator[JobResult]:
    """See `Engine.run`."""
    station = here()
    for job in jobs:
        yield from station.measure(job)
