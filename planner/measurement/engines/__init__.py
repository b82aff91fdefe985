"""The engines, which run jobs. To add one: a file with `missing` and `run`, a line here. Imports no torch by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError
from bitplan.planner.measurement.engines.base import Cluster

if TYPE_CHECKING:
    from bitplan.planner.measurement.jobs import Job, JobResult
    from bitplan.planner.measurement.worker import Worker, WorkerSetup


__all__ = ["ENGINES", "Cluster", "Engine", "engine_named"]


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes:
        name: its name in options and files.
        module: the module with its `missing` and `run`, imported on first use.
        distributed: whether it works on a `Cluster`.
        about: what it does, in one line for tables.
    """

    name: str
    module: str
    distributed: bool
    about: str

    def missing(self, cluster: Cluster | None = None) -> str | None:
        """Why it cannot run from here on the cluster and what to do, or None."""
        reason: str | None = import_module(self.module).missing(cluster or Cluster())
        return reason

    def worker_count(self, cluster: Cluster, threads: int) -> int:
        """The number of workers, of `threads` threads each, that one round of work is divided among."""
        return (cluster.workers or max(1, (os.cpu_count() or 1) // threads)) if self.distributed else 1

    def run(
        self, setup: WorkerSetup, jobs: Sequence[Job], local_worker: Callable[[], Worker], cluster: Cluster
    ) -> Iterator[JobResult]:
        """Run the jobs and yield their results in any order, each (layer, scheme) once.

        Args:
            setup: what other processes build their workers of.
            jobs: the jobs.
            local_worker: returns a worker of the pipeline that this process has loaded.
            cluster: where to find other workers.

        Raises:
            UserError: workers fail. Errors of a worker pass through. Results that were yielded stay valid.
        """
        results: Iterator[JobResult] = import_module(self.module).run(setup, jobs, local_worker, cluster)
        return results


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("local", "bitplan.planner.measurement.engines.local", False, "one job after the other in this process"),
        Engine("ray", "bitplan.planner.measurement.engines.ray", True, "workers of a Ray cluster, here or elsewhere"),
    )
}


def engine_named(name: str, cluster: Cluster) -> Engine:
    """The engine of that name. Raises UserError if there is none, it cannot run, or it does not use a cluster."""
    if name not in ENGINES:
        raise UserError(f"there is no engine {name!r}; choose {' or '.join(ENGINES)}")
    engine = ENGINES[name]
    if cluster != Cluster() and not engine.distributed:
        distributed = " or ".join(e.name for e in ENGINES.values() if e.distributed)
        raise UserError(f"the engine {name} takes neither --address nor --workers; add --engine {distributed}")
    if cluster.workers is not None and cluster.workers < 1:
        raise UserError(f"{cluster.workers} workers measure nothing; ask for at least 1")
    if reason := engine.missing(cluster):
        raise UserError(f"the engine {name} cannot run: {reason}")
    return engine
