"""Jobs on the workers of a Ray cluster, which restarts a worker that dies and repeats its job.

Each worker is an actor that opens its station at its first job; what it finds streams back while it measures. The
driver keeps one job with every worker, so that what waits can go to whoever is free.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.measurement.engines.base import Cluster
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.worker import Worker, WorkerSetup, open_station
from bitplan.planner.texts import one_line

RETRIES = 2  # of a job whose worker died
_STORE = 100 * 2**20  # bytes of the object store of a cluster that is started here: results are small
_WAIT = 5.0  # seconds for the head of a cluster to answer
_ROOM = 3  # weights' sizes that a worker is reckoned to need in memory


_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else a paragraph on every worker that died
}


def missing(site: Cluster) -> str | None:
    """What to install, why the address cannot be reached (Ray itself would try for minutes), or None."""
    if not importlib.util.find_spec("ray"):
        return "ray is not installed; pip install 'bitplan[ray]'"
    if site.address in (None, "auto"):
        return None
    host, _, port = str(site.address).rpartition(":")
    try:
        socket.create_connection((host, int(port)), _WAIT).close()
    except (OSError, ValueError) as error:
        return f"no cluster answers at {site.address} ({error}); give the HOST:PORT that `ray start --head` printed"
    return None


def run(context: WorkerSetup, jobs: Sequence[Job], here: Callable[[], Worker], site: Cluster) -> Iterator[JobResult]:
    """See `Engine.run`. A job is given up when its worker has died `RETRIES` + 1 times."""
    with cluster(site) as ray:
        crew = allotment_of(ray.nodes(), context.threads, _ROOM * context.size, site.workers)
        hire = ray.remote(RayActor).options(
            num_cpus=crew.cpus, max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        workers = [hire.remote() for _ in range(min(crew.workers, len(jobs)))]
        try:
            yield from _streams(ray, workers, ray.put(_anywhere(context)), jobs)
        finally:
            for worker in workers:
                ray.kill(worker)


class RayActor:
    """What runs in each worker."""

    def __init__(self) -> None:
        self._station: Worker | None = None

    def measure(self, context: WorkerSetup, job: Job) -> Iterator[JobResult]:
        """Opens the station if that was not done, so that its errors reach the driver as those of any job do.

        With as many threads as the driver, however many CPUs there are: another number would round otherwise.
        """
        if self._station is None:
            import torch

            torch.set_num_threads(context.threads)
            self._station = open_station(context)
        yield from self._station.measure(job)


@dataclass(frozen=True)
class Allotment:
    """How many workers at most, and how many CPUs each holds."""

    workers: int
    cpus: int


def allotment_of(nodes: Sequence[Mapping[str, Any]], threads: int, need: int, workers: int | None) -> Allotment:
    """The crew that fits on the nodes (as `ray.nodes()` tells of them), whatever there is to do.

    threads: that each worker computes with, and so the CPUs that it is to hold; it holds fewer where no node has so
    many, or where `workers` would not fit. need: bytes of memory of one worker. Unless `workers` says how many: all
    that CPUs and memory allow, at least one. Raises UserError when there are fewer CPUs than workers.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in alive]
    most = min(threads, max(cpus, default=0))
    if workers is None:
        room = [int(node.get("memory", 0)) // max(need, 1) for node in alive]
        workers = max(1, sum(min(n // max(most, 1), fitting) for n, fitting in zip(cpus, room, strict=True)))
    if sum(cpus) < workers:
        raise UserError(f"the cluster has {sum(cpus)} CPUs for {workers} workers; ask for fewer with --workers")
    return Allotment(workers, max(n for n in range(1, most + 1) if sum(have // n for have in cpus) >= workers))


@contextlib.contextmanager
def cluster(site: Cluster) -> Iterator[Any]:
    """The module `ray`, connected; what was not connected before is disconnected again, and a local cluster stopped."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized() and site.address is None:
        yield ray
        return
    where: dict[str, Any] = {"address": site.address}
    if site.address is None:
        cpus = max(os.cpu_count() or 1, site.workers or 1)
        where = {"address": "local", "num_cpus": cpus, "object_store_memory": _STORE, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **where)
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(error, 200)
        raise UserError(
            f"cannot reach the Ray cluster at {site.address or 'this machine'}: {reason}; check --address"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _anywhere(context: WorkerSetup) -> WorkerSetup:
    """The same with full paths, for a worker's working folder is another."""
    settings = context.settings
    found = dataclasses.replace(
        settings, pipeline=_full(settings.pipeline), clip=settings.clip and _full(settings.clip)
    )
    return dataclasses.replace(context, settings=found)


def _full(place: str) -> str:
    return str(Path(place).absolute()) if Path(place).is_dir() else place


def _streams(ray: Any, workers: Sequence[Any], context: Any, jobs: Sequence[Job]) -> Iterator[JobResult]:
    """What all workers find, as it comes. context: a reference to it."""
    waiting = iter(jobs)
    busy: dict[Any, tuple[Any, Job]] = {}  # stream of results -> the worker and the job that it is of

    def give(worker: Any) -> None:
        if job := next(waiting, None):
            busy[worker.measure.options(num_returns="streaming").remote(context, job)] = worker, job

    for worker in workers:
        give(worker)
    while busy:
        stream = ray.wait(list(busy), num_returns=1)[0][0]
        reference = next(stream, None)
        if reference is None:
            give(busy.pop(stream)[0])
        else:
            yield _result(ray, reference, busy[stream][1])


def _result(ray: Any, reference: Any, job: Job) -> JobResult:
    try:
        found: JobResult = ray.get(reference)
        return found
    except ray.exceptions.RayTaskError as error:  # raised by the station: as if it had been here
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".:")
        raise UserError(
            f"{RETRIES + 1} workers died on {', '.join(job.layers)} ({reason}); give them more memory or ask for fewer "
            "with --workers; what was measured is kept, and the same command goes on from there"
        ) from None
