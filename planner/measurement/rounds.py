"""Divide probe jobs into rounds of prompts, and write each round to the profile in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import PROBED, Probed, probed, record_of, response_of, responses_of
from bitplan.sensitivity.responses import Reading, Sums, measurement_of
from bitplan.sensitivity.table import MeasurementError

ROUND = 4  # prompts


def rounds_of(jobs: Sequence[Job], start: int, stop: int, size: int = ROUND) -> list[Job]:
    """The jobs of all rounds of `size` prompts from `start` to before `stop`, round after round."""
    cuts = [(first, min(first + size, stop)) for first in range(start, stop, size)]
    return [replace(job, prompts=cut) for cut in cuts for job in jobs]


def write_rounds(store: Profile, results: Iterable[JobResult], families: Mapping[str, str], pairs: int) -> None:
    """Write each round as soon as all its `pairs` results have come. Rounds may come mixed and are written in order."""
    waiting: dict[int, list[JobResult]] = {}
    written = probed(store).prompts
    for result in results:
        waiting.setdefault(result.prompts[0], []).append(result)
        while len(waiting.get(written, ())) == pairs:
            _write_round(store, waiting.pop(written), families)
            written = probed(store).prompts


def _write_round(store: Profile, results: Sequence[JobResult], families: Mapping[str, str]) -> None:
    """Append the responses of a round to those of earlier rounds, and update the estimates.

    A layer that ran in no round so far has responses and no estimate. One without responses in this round loses those
    of earlier rounds: its loss is not that of some prompts alone.
    """
    reached = [result for result in results if result.responses]
    if not reached:
        why = (
            "no gradient of the output reaches a layer of which each row acts on one prompt alone"
            if any(result.readings for result in results)
            else "no metric has a probe"
        )
        raise MeasurementError(f"no layer can be probed: {why}; measure with --method exhaustive")
    before, stored = probed(store), responses_of(store)
    readings, first = _joined_readings(before.readings, reached[0].readings), not before.prompts
    after = _joined_lists(before, results, int(reached[0].prompts[1] or 0), readings)
    exact = store.measured("exhaustive")
    measurements, responses = [], []
    for result in reached:
        if result.pair[0] in after.unreached:
            continue
        if not first and any((*result.pair, metric) not in stored for metric in result.responses):
            continue  # a pair without earlier rounds: see `write_missed`
        sums = {metric: _joined(stored.get((*result.pair, metric)), new) for metric, new in result.responses.items()}
        responses += [response_of(result.pair, metric, whole) for metric, whole in sums.items()]
        if result.pair not in exact and result.pair[0] not in after.idle:
            measurements += [measurement_of(*result.pair, name, readings[name], whole) for name, whole in sums.items()]
    new = [layer for layer in after.unreached if layer not in before.unreached]
    store.write_measurements(measurements, families, responses, {PROBED: record_of(after)}, new)


def _joined_lists(
    before: Probed, results: Sequence[JobResult], prompts: int, readings: Mapping[str, Reading]
) -> Probed:  # fmt: skip
    """What the profile has been probed on after a round with these results."""
    unreached = dict.fromkeys((*before.unreached, *(result.pair[0] for result in results if not result.responses)))
    ran = {result.pair[0] for result in results if not result.idle}
    new = (result.pair[0] for result in results if result.idle and not before.prompts)
    idle = dict.fromkeys((*before.idle, *new))
    return Probed(prompts, readings, tuple(unreached), tuple(layer for layer in idle if layer not in ran))


def write_missed(store: Profile, results: Iterable[JobResult], families: Mapping[str, str]) -> None:
    """Write the responses of pairs that the finished rounds left out, such as another share's.

    Each pair is written once its results of all finished rounds have come, in any order.
    """
    finished, waiting = probed(store), dict[Pair, list[JobResult]]()
    for result in results:
        rounds = waiting.setdefault(result.pair, [])
        rounds.append(result)
        if sum(int(each.prompts[1] or 0) - each.prompts[0] for each in rounds) == finished.prompts:
            in_order = sorted(waiting.pop(result.pair), key=lambda each: each.prompts[0])
            _write_pair(store, in_order, finished, families)


def _write_pair(store: Profile, rounds: Sequence[JobResult], finished: Probed, families: Mapping[str, str]) -> None:
    pair, sums, known = rounds[0].pair, dict[str, Sums](), probed(store)
    if not all(result.responses for result in rounds):
        unreached = tuple(dict.fromkeys((*known.unreached, pair[0])))
        store.write_measurements((), families, (), {PROBED: record_of(replace(known, unreached=unreached))}, pair[:1])
        return
    for result in rounds:
        sums |= {metric: _joined(sums.get(metric), new) for metric, new in result.responses.items()}
    responses = [response_of(pair, metric, whole) for metric, whole in sums.items()]
    if all(result.idle for result in rounds):
        idle = tuple(dict.fromkeys((*known.idle, pair[0])))
        store.write_measurements((), families, responses, {PROBED: record_of(replace(known, idle=idle))})
        return
    measurements = [measurement_of(*pair, metric, finished.readings[metric], whole) for metric, whole in sums.items()]
    store.write_measurements(measurements, families, responses)


def _joined_readings(old: Mapping[str, Reading], new: Mapping[str, Reading]) -> dict[str, Reading]:
    none = Reading((), (), False)
    return {
        name: Reading(
            old.get(name, none).strata + reading.strata, old.get(name, none).clusters + reading.clusters, reading.signed
        )
        for name, reading in new.items()
    }


def _joined(old: Sums | None, new: Sums) -> Sums:
    return new if old is None else np.concatenate([old, new], axis=1)
