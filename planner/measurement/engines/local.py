"""Jobs one after the other in this process, on the pipeline that is loaded already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bitplan.planner.measurement.engines.base import Site
from bitplan.planner.measurement.jobs import Found, Job
from bitplan.planner.measurement.worker import Context, Station


def missing(site: Site) -> None:
    """It is always there."""


def run(context: Context, jobs: Sequence[Job], here: Callable[[], Station], site: Site) -> Iterator[Found]:
    """See `Engine.run`."""
    station = here()
    for job in jobs:
        yield from station.measure(job)
