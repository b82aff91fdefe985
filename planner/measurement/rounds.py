"""Divide probe jobs into rounds of prompts, and write each round to the profile in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import PROBED, Probed, probed, response_of, responses_of
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
    """Append the responses of a round to those of earlier rounds, and update the estimates."""
    reached = [result for result in results if result.responses]
    if not reached:
        raise MeasurementError(
            "no layer can be probed: no layer runs on one input a prompt; measure with --method exhaustive"
        )
    before, stored = probed(store), responses_of(store)
    readings, first = _joined_readings(before.readings, reached[0].readings), not before.prompts
    exact = store.measured("exhaustive")
    measurements, responses = [], []
    for result in reached:
        if not first and any((*result.pair, metric) not in stored for metric in result.responses):
            continue  # a pair without earlier rounds: see `write_missed`
        sums = {metric: _joined(stored.get((*result.pair, metric)), new) for metric, new in result.responses.items()}
        responses += [response_of(result.pair, metric, whole) for metric, whole in sums.items()]
        if result.pair not in exact:
            measurements += [measurement_of(*result.pair, name, readings[name], whole) for name, whole in sums.items()]
    value = {"prompts": reached[0].prompts[1], "readings": {name: asdict(each) for name, each in readings.items()}}
    unreached = dict.fromkeys((*before.unreached, *(result.pair[0] for result in results if not result.responses)))
    if unreached:
        value["unreached"] = list(unreached)
    store.write_measurements(measurements, families, responses, {PROBED: value})


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
    pair, sums = rounds[0].pair, dict[str, Sums]()
    for result in rounds:
        sums |= {metric: _joined(sums.get(metric), new) for metric, new in result.responses.items()}
    measurements = [measurement_of(*pair, metric, finished.readings[metric], whole) for metric, whole in sums.items()]
    store.write_measurements(
        measurements, families, [response_of(pair, metric, whole) for metric, whole in sums.items()]
    )


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
