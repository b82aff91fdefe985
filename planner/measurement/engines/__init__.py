"""Where jobs run. To add an engine: a file with `missing` and `run`, a line here. Imports no torch by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError  # noqa: F401
from bitplan.planner.measurement.engines.base import Cluster  # noqa: F401

if TYPE_CHECKING:
    from bitplan.planner.measurement.jobs import Job, JobResult
    from bitplan.planner.measurement.worker import Worker, WorkerSetup


__all__ = ["ENGINES", "Engine", "Cluster", "engine_named"]


@dataclass(frozen=True)
class Engine:
    """One engine: its name, the module that drives it, whether it works at a site of the user's choice, what it is."""

    name: str
    module: str
    sited: bool
    about: str

    def missing(self, site: Cluster | None = None) -> str | None:
        """Why it cannot run from here at the site and what to do, or None."""
        answer: str | None = import_module(self.module).missing(site or Cluster())
        return answer

    def share(self, site: Cluster, threads: int) -> int:
        """Among how many workers, of so many threads each, one round of work is to be divided."""
        return (site.workers or max(1, (os.cpu_count() or 1) // threads)) if self.sited else 1

    def run(
        self, context: WorkerSetup, jobs: Sequence[Job], here: Callable[[], Worker], site: Cluster
    ) -> Iterator[JobResult]:
        """Everything that the jobs find, as it comes and in any order; every (layer, scheme) once.

        here: a station in this process, of what is loaded already, for an engine that works here. Raises UserError
        where workers fail, and what stations raise; what has been yielded stays valid.
        """
        found: Iterator[JobResult] = import_module(self.module).run(context, jobs, here, site)
        return found


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("local", "bitplan.planner.measurement.engines.local", False, "one job after the other in this process"),
        Engine("ray", "bitplan.planner.measurement.engines.ray", True, "workers of a Ray cluster, here or elsewhere"),
    )
}


def engine_named(name: str, site: Cluster) -> Engine:
    """Raises UserError where there is none of that name, it cannot run, or it has no use for the site."""
    if name not in ENGINES:
        raise UserError(f"there is no engine {name!r}; choose {' or '.join(ENGINES)}")
    engine = ENGINES[name]
    if site != Cluster() and not engine.sited:
        sited = " or ".join(e.name for e in ENGINES.values() if e.sited)
        raise UserError(f"the engine {name} takes neither --address nor --workers; add --engine {sited}")
    if site.workers is not None and site.workers < 1:
        raise UserError(f"{site.workers} workers measure nothing; ask for at least 1")
    if reason := engine.missing(site):
        raise UserError(f"the engine {name} cannot run: {reason}")
    return engine
