"""Jobs on the workers of a Ray cluster, which restarts a worker that dies and repeats its job.

Each Ray worker is an actor that loads the subject at its first job. Its results stream back while it measures. The
driver gives each actor one job at a time, so that waiting jobs go to the first free actor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.environment import environment
from bitplan.planner.errors import UserError
from bitplan.planner.extras import EXTRAS
from bitplan.planner.measurement.engines.base import Cluster
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.methods import run_job
from bitplan.planner.measurement.worker import Worker, WorkerSetup, open_worker
from bitplan.planner.pipelines.additions import eagerly
from bitplan.planner.pipelines.references import importable
from bitplan.planner.texts import one_line

RETRIES = 2  # repetitions of a job whose worker died
_STORE = 100 * 2**20  # bytes of the object store of a cluster that is started here; results are small
_WAIT = 5.0  # seconds until the head of a cluster must answer
_ROOM = 3  # a worker's memory, in sizes of the weights


_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it prints a stack for SIGTERM, which is answered in one line
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # without it Ray prints a paragraph for each worker that died
}


def missing(cluster: Cluster) -> str | None:
    """Why Ray cannot be used and what to do, or None. Ray itself would try an address for minutes."""
    if reason := EXTRAS["ray"].missing():
        return f"it needs {reason}"
    if cluster.address in (None, "auto"):
        return None
    host, _, port = str(cluster.address).rpartition(":")
    try:
        socket.create_connection((host, int(port)), _WAIT).close()
    except (OSError, ValueError) as error:
        reason = one_line(error)
        return f"no cluster answers at {cluster.address} ({reason}); give the HOST:PORT that `ray start --head` printed"
    return None


def run(
    setup: WorkerSetup, jobs: Sequence[Job], local_worker: Callable[[], Worker], cluster: Cluster
) -> Iterator[JobResult]:
    """See `Engine.run`. A job fails when its worker has died `RETRIES` + 1 times."""
    with connected(cluster) as ray:
        allotment = allotment_of(ray.nodes(), setup.threads, _ROOM * setup.size, cluster.workers)
        actor = ray.remote(RayActor).options(
            num_cpus=allotment.cpus, max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        actors = [actor.remote() for _ in range(min(allotment.workers, len(jobs)))]
        try:
            yield from _streams(ray, actors, ray.put(_portable(setup)), jobs)
        finally:
            for each in actors:
                ray.kill(each)


class RayActor:
    """The actor of one Ray worker."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def measure(self, setup: WorkerSetup, job: Job) -> Iterator[JobResult]:
        """Measure a job. The first call opens the worker, so that its errors reach the driver like those of a job.

        It computes with as many threads as the driver, whatever CPUs there are: another number would round otherwise.
        """
        if self._worker is None:
            import torch

            torch.set_num_threads(setup.threads)
            self._worker = open_worker(setup)
        with eagerly():
            yield from run_job(self._worker, job)


@dataclass(frozen=True)
class Allotment:
    """The resources of the workers.

    Attributes:
        workers: the largest number of workers.
        cpus: the number of CPUs of each.
    """

    workers: int
    cpus: int


def allotment_of(nodes: Sequence[Mapping[str, Any]], threads: int, need: int, workers: int | None) -> Allotment:
    """The workers that fit on the nodes, whatever the number of jobs.

    Args:
        nodes: the result of `ray.nodes()`.
        threads: torch threads of each worker; it gets as many CPUs, or fewer if no node has so many or `workers` would
            not fit.
        need: bytes of memory of one worker.
        workers: their number; None for all that CPUs and memory allow, at least one.

    Raises:
        UserError: there are fewer CPUs than workers.
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
def connected(cluster: Cluster) -> Iterator[Any]:
    """Within the `with`, gives the module `ray`, connected to the cluster.

    A connection that is made here is closed afterwards, and a local cluster that is started here is stopped.
    """
    with (
        environment({name: value for name, value in _QUIET.items() if name not in os.environ}),
        importable(os.getcwd()),
    ):
        yield from _connected(cluster)


def _connected(cluster: Cluster) -> Iterator[Any]:
    import ray

    if ray.is_initialized() and cluster.address is None:
        yield ray
        return
    options: dict[str, Any] = {"address": cluster.address}
    if cluster.address is None:
        cpus = max(os.cpu_count() or 1, cluster.workers or 1)
        options = {"address": "local", "num_cpus": cpus, "object_store_memory": _STORE, "include_dashboard": False}
    try:
        with _same_handler():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(error, 200)
        raise UserError(
            f"cannot reach the Ray cluster at {cluster.address or 'this machine'}: {reason}; check --address"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _same_handler() -> Iterator[None]:
    """Keep what answers SIGTERM, which `ray.init` replaces by `sys.exit`."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _portable(setup: WorkerSetup) -> WorkerSetup:
    """The setup with absolute paths: workers have another working folder."""
    settings = setup.settings
    portable = dataclasses.replace(
        settings, pipeline=_absolute(settings.pipeline), clip=settings.clip and _absolute(settings.clip)
    )
    return dataclasses.replace(setup, settings=portable)


def _absolute(place: str) -> str:
    return str(Path(place).absolute()) if Path(place).is_dir() else place


def _streams(ray: Any, actors: Sequence[Any], setup: Any, jobs: Sequence[Job]) -> Iterator[JobResult]:
    """Yield the results of all actors as they come. setup: a Ray reference to the workers' setup."""
    waiting = iter(jobs)
    busy: dict[Any, tuple[Any, Job]] = {}  # stream of results -> its actor and its job

    def submit(actor: Any) -> None:
        if job := next(waiting, None):
            busy[actor.measure.options(num_returns="streaming").remote(setup, job)] = actor, job

    for actor in actors:
        submit(actor)
    while busy:
        stream = ray.wait(list(busy), num_returns=1)[0][0]
        reference = next(stream, None)
        if reference is None:
            submit(busy.pop(stream)[0])
        else:
            yield _result(ray, reference, busy[stream][1])


def _result(ray: Any, reference: Any, job: Job) -> JobResult:
    try:
        result: JobResult = ray.get(reference)
        return result
    except ray.exceptions.RayTaskError as error:  # an error of the worker passes through
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise UserError(
            f"{RETRIES + 1} workers died on {', '.join(job.layers)} ({reason}); give them more memory or ask for fewer "
            "with --workers; what was measured is kept, and the same command continues from there"
        ) from None
