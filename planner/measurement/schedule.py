"""In which order losses are measured: measure_exhaustively, or by probes with checks; each goes on where it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

from bitplan.planner.choice.open_choices import to_measure
from bitplan.planner.measurement.jobs import Job, JobResult, jobs_of, pending_of
from bitplan.planner.measurement.rounds import ROUND, rounds_of, write_missed, write_rounds
from bitplan.planner.profiles.corrections import check_estimates, choose_checks, correct
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import PROBED, probed
from bitplan.planner.progress import current
from bitplan.sensitivity.table import MeasurementError

CHUNK = 4  # layers of a job of single measurements, which are lost if its worker dies
PORTION = 32  # layers that are caught up together, whose rounds are lost if time runs out


@dataclass(frozen=True, eq=False)
class Schedule:
    """The work and the means of a measurement.

    Attributes:
        store: the profile.
        run: runs jobs on the engine and yields their results.
        pairs: every (layer, scheme) to measure.
        prompts: the number of prompts.
        families: metric -> family.
        workers: the number of workers that share a round.
        deadline: by `time.monotonic`; inf for none.
        runs: whether a full run of the model shows the effect of one scheme.
        round: the number of prompts of a round of probes.
    """

    store: Profile
    run: Callable[[Sequence[Job]], Iterator[JobResult]]
    pairs: tuple[Pair, ...]
    prompts: int
    families: Mapping[str, str]
    workers: int
    deadline: float
    runs: bool
    round: int = ROUND

    @property
    def late(self) -> bool:
        """Whether the deadline is over."""
        return time.monotonic() >= self.deadline


def measure_exhaustively(schedule: Schedule, pairs: Sequence[Pair], phase: str = "losses") -> None:
    """Measure every pair that was not measured by itself, until the deadline."""
    jobs = pending_of(jobs_of("exhaustive", pairs, CHUNK), schedule.store.measured("exhaustive"))
    pending = sum(job.size for job in jobs)
    with _results(schedule, jobs, phase, (len(pairs), len(pairs) - pending, "measurements")) as results:
        for result in results:
            schedule.store.write_measurements(result.measurements, schedule.families)
            if schedule.late:
                return


def measure_by_probes(schedule: Schedule, checks: int, around: str) -> None:
    """Probe on all prompts, measure some pairs exhaustively, and correct the estimates by them.

    Pairs that no probe reaches are measured exhaustively, such as those of layers that ran in no round, and `checks`
    others. If there is a deadline, measure until then the pairs that a plan with the memory `around` is undecided
    about. Raises MeasurementError at the end if the checks contradict the estimates.
    """
    _catch_up(schedule)
    finished = probed(schedule.store).prompts
    jobs = rounds_of(_divide(schedule, schedule.pairs), finished, schedule.prompts, schedule.round)
    with _results(schedule, jobs, "estimates", (schedule.prompts, finished, "prompts")) as results:
        write_rounds(schedule.store, _in_time(schedule, jobs, results), schedule.families, len(schedule.pairs))
    pending = [pair for pair in schedule.pairs if pair not in schedule.store.measured()]
    if pending and not schedule.runs:
        raise MeasurementError(
            f"no probe reaches {len(pending)} of {len(schedule.pairs)} (layer, scheme), such as {pending[0][0]}, and "
            "runs in 16 bits cannot measure them; profile with --dtype float32, or other --components"
        )
    if pending and not schedule.late:
        measure_exhaustively(schedule, pending)
    if checks and not schedule.late:
        measure_exhaustively(schedule, choose_checks(schedule.store, checks), "checks")
    fits = correct(schedule.store, schedule.families)
    while math.isfinite(schedule.deadline) and not schedule.late:
        if not (undecided := to_measure(schedule.store, around, CHUNK)):
            break
        measure_exhaustively(schedule, undecided, "undecided")
        fits = correct(schedule.store, schedule.families)
    check_estimates(fits)


def _catch_up(schedule: Schedule) -> None:
    """Probe the pairs that the finished rounds left out, a portion of layers at a time, in all rounds each."""
    finished, measured = probed(schedule.store), schedule.store.measured()
    if not finished.prompts:
        return
    known = {*finished.unreached, *finished.idle}
    missed = [pair for pair in schedule.pairs if pair not in measured and pair[0] not in known]
    portions = _divide(schedule, missed, PORTION)
    jobs = [job for portion in portions for job in rounds_of([portion], 0, finished.prompts, schedule.round)]
    with _results(schedule, jobs, "estimates missed", (finished.prompts, 0, "prompts")) as results:
        write_missed(schedule.store, _in_time(schedule, jobs, results), schedule.families)


def _divide(schedule: Schedule, pairs: Sequence[Pair], most: int | None = None) -> tuple[Job, ...]:
    """The jobs of one round about the pairs: one for each worker, or more jobs of at most `most` layers."""
    layers = max(1, -(-len({layer for layer, _ in pairs}) // schedule.workers))
    return jobs_of("probes", pairs, min(layers, most or layers))


def _results(
    schedule: Schedule, jobs: Sequence[Job], phase: str, size: tuple[int, int, str]
) -> AbstractContextManager[Iterator[JobResult]]:
    """Returns the results of jobs, and shows progress. size: (total, already finished, unit name) of the phase."""
    return closing(_with_progress(schedule, jobs, phase, size)) if jobs else nullcontext(iter(()))


def _with_progress(
    schedule: Schedule, jobs: Sequence[Job], phase: str, size: tuple[int, int, str]
) -> Iterator[JobResult]:
    course, (total, finished, unit) = current(), size
    weight = (total - finished) / sum(job.size for job in jobs)
    with (
        course.phase(phase, total, unit, finished, weight),
        closing(schedule.run(jobs)) as results,  # type: ignore[type-var]
    ):
        for result in results:
            yield result
            course.advance(Job("", (result.pair,), result.prompts).size)


def _in_time(schedule: Schedule, jobs: Sequence[Job], results: Iterator[JobResult]) -> Iterator[JobResult]:
    """The results until the deadline, without a job of which only some results come: all of a job come together.

    The first round is always finished, since nothing can be planned without one.
    """
    job_of = {(pair, job.prompts): (index, len(job.pairs)) for index, job in enumerate(jobs) for pair in job.pairs}
    missing: dict[int, int] = {}  # index of an incomplete job -> how many of its results are missing
    while missing or not (schedule.late and PROBED in schedule.store.baseline()):
        if (result := next(results, None)) is None:
            return
        yield result
        index, pairs = job_of[result.pair, result.prompts]
        missing[index] = missing.get(index, pairs) - 1
        if not missing[index]:
            del missing[index]
