"""In which order losses are measured: exhaustively, or by probes with checks; each goes on where it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

from bitplan.planner.choice.undecided import to_measure
from bitplan.planner.measurement.jobs import Job, JobResult, jobs_of, pending_of
from bitplan.planner.measurement.rounds import rounds_of, write_missed, write_rounds
from bitplan.planner.profiles.corrections import choose_checks, correct
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import PROBED, probed
from bitplan.planner.progress import current
from bitplan.sensitivity.table import MeasurementError

CHUNK = 4  # layers of a job of single measurements: what a worker that dies loses
PORTION = 32  # layers that are caught up together, in a pass for each round: what running out of time loses


@dataclass(frozen=True, eq=False)
class Schedule:
    """What measuring needs. run: hands jobs to the engine; pairs: all that is to be measured; prompts: how many;
    families: of the metrics; workers: how many share a round; deadline: by `time.monotonic`, inf for none;
    runs: whether a run of the model can tell what one scheme did."""

    store: Profile
    run: Callable[[Sequence[Job]], Iterator[JobResult]]
    pairs: tuple[Pair, ...]
    prompts: int
    families: Mapping[str, str]
    workers: int
    deadline: float
    runs: bool

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.deadline


def exhaustively(plant: Schedule, pairs: Sequence[Pair], what: str = "losses") -> None:
    """Measure every pair by itself that was not, until the time is up."""
    jobs = pending_of(jobs_of("exhaustive", pairs, CHUNK), plant.store.measured("exhaustive"))
    left = sum(job.size for job in jobs)
    with _results(plant, jobs, what, (len(pairs), len(pairs) - left, "measurements")) as found:
        for one in found:
            plant.store.write_measurements(one.measurements, plant.families)
            if plant.late:
                return


def by_probes(plant: Schedule, checks: int, around: str) -> None:
    """Probe on all prompts; measure by themselves the pairs that no probe reaches, and so many others as a check; then
    correct by these. With a deadline, go on until then with what a plan of the memory `around` is undecided about."""
    _catch_up(plant)
    done = probed(plant.store).prompts
    jobs = rounds_of(_spread(plant, plant.pairs), done, plant.prompts)
    with _results(plant, jobs, "estimates", (plant.prompts, done, "prompts")) as found:
        write_rounds(plant.store, _in_time(plant, jobs, found), plant.families, len(plant.pairs))
    left = [pair for pair in plant.pairs if pair not in plant.store.measured()]
    if left and not plant.runs:
        raise MeasurementError(
            f"no probe reaches {len(left)} of {len(plant.pairs)} (layer, scheme), such as {left[0][0]}, and runs in 16 "
            "bits cannot tell them; profile with --dtype float32, or other --components"
        )
    if left and not plant.late:
        exhaustively(plant, left)
    if checks and not plant.late:
        exhaustively(plant, choose_checks(plant.store, checks), "checks")
    correct(plant.store, plant.families)
    while math.isfinite(plant.deadline) and not plant.late and (some := to_measure(plant.store, around, CHUNK)):
        exhaustively(plant, some, "undecided")
        correct(plant.store, plant.families)


def _catch_up(plant: Schedule) -> None:
    """Probe what the rounds that are done were not about, a portion of layers after the other: all rounds of each."""
    done, measured = probed(plant.store), plant.store.measured()
    if not done.prompts:
        return
    missed = [pair for pair in plant.pairs if pair not in measured and pair[0] not in done.unreached]
    jobs = [job for portion in _spread(plant, missed, PORTION) for job in rounds_of([portion], 0, done.prompts)]
    with _results(plant, jobs, "estimates missed", (done.prompts, 0, "prompts")) as found:
        write_missed(plant.store, _in_time(plant, jobs, found), plant.families)


def _spread(plant: Schedule, pairs: Sequence[Pair], most: int | None = None) -> tuple[Job, ...]:
    """One round about the pairs, a job for each worker, or more jobs where one may have so many layers at most."""
    each = max(1, -(-len({layer for layer, _ in pairs}) // plant.workers))
    return jobs_of("probes", pairs, min(each, most or each))


def _results(
    plant: Schedule, jobs: Sequence[Job], what: str, counted: tuple[int, int, str]
) -> AbstractContextManager[Iterator[JobResult]]:
    """counted: of this phase in all, before now, and what."""
    return closing(_shown(plant, jobs, what, counted)) if jobs else nullcontext(iter(()))


def _shown(plant: Schedule, jobs: Sequence[Job], what: str, counted: tuple[int, int, str]) -> Iterator[JobResult]:
    course, (total, known, unit) = current(), counted
    each = (total - known) / sum(job.size for job in jobs)
    with course.phase(what, total, unit, known, each), closing(plant.run(jobs)) as results:  # type: ignore[type-var]
        for one in results:
            yield one
            course.advance(Job("", (one.pair,), one.prompts).size)


def _in_time(plant: Schedule, jobs: Sequence[Job], found: Iterator[JobResult]) -> Iterator[JobResult]:
    """Until the time is up and of no job a part alone has come: what a job found comes all at once. But for the first
    round, for without any there is nothing to plan with."""
    size = {(pair, job.prompts): (place, len(job.pairs)) for place, job in enumerate(jobs) for pair in job.pairs}
    owed: dict[int, int] = {}  # by the place of a job, of which some has come
    while owed or not (plant.late and PROBED in plant.store.baseline()):
        if (one := next(found, None)) is None:
            return
        yield one
        place, pairs = size[one.pair, one.prompts]
        owed[place] = owed.get(place, pairs) - 1
        if not owed[place]:
            del owed[place]
