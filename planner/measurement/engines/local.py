"""Runs jobs one after the other in this process, on the loaded pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bitplan.planner.measurement.engines.base import Cluster
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.methods import run_job
from bitplan.planner.measurement.worker import Worker, WorkerSetup


def missing(cluster: Cluster) -> None:
    """It is always available."""


def run(
    setup: WorkerSetup, jobs: Sequence[Job], local_worker: Callable[[], Worker], cluster: Cluster
) -> Iterator[JobResult]:
    """See `Engine.run`."""
    worker = local_worker()
    for job in jobs:
        yield from run_job(worker, job)
