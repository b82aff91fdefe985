"""Splits probe jobs into rounds of prompts, and writes each round to the profile in one transaction."""

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


def rounds_of(jobs: Sequence[Job], start: int, stop: int) -> list[Job]:
    """The jobs of all rounds about prompts `start` to before `stop`, round after round."""
    cuts = [(first, min(first + ROUND, stop)) for first in range(start, stop, ROUND)]
    return [replace(job, prompts=cut) for cut in cuts for job in jobs]


def write_rounds(store: Profile, found: Iterable[JobResult], families: Mapping[str, str], pairs: int) -> None:
    """Keep each round as soon as it is whole, of so many pairs; rounds may come mixed, but are kept in order."""
    waiting: dict[int, list[JobResult]] = {}
    done = probed(store).prompts
    for one in found:
        waiting.setdefault(one.prompts[0], []).append(one)
        while len(waiting.get(done, ())) == pairs:
            _write_round(store, waiting.pop(done), families)
            done = probed(store).prompts


def _write_round(store: Profile, all_found: Sequence[JobResult], families: Mapping[str, str]) -> None:
    """Put what a round found behind what earlier ones did, and estimate anew."""
    found = [one for one in all_found if one.responses]
    if not found:
        raise MeasurementError(
            "no layer can be probed: none is run on one input a prompt; measure with --method exhaustive"
        )
    before, held = probed(store), responses_of(store)
    readings, first = _longer(before.readings, found[0].readings), not before.prompts
    exact = store.measured("exhaustive")
    measurements, responses = [], []
    for one in found:
        if not first and any((*one.pair, metric) not in held for metric in one.responses):
            continue  # earlier rounds were not about it: see `write_missed`
        sums = {metric: _wider(held.get((*one.pair, metric)), new) for metric, new in one.responses.items()}
        responses += [response_of(one.pair, metric, all_) for metric, all_ in sums.items()]
        if one.pair not in exact:
            measurements += [measurement_of(*one.pair, metric, readings[metric], all_) for metric, all_ in sums.items()]
    value = {"prompts": found[0].prompts[1], "readings": {name: asdict(its) for name, its in readings.items()}}
    in_vain = dict.fromkeys((*before.unreached, *(one.pair[0] for one in all_found if not one.responses)))
    if in_vain:
        value["unreached"] = list(in_vain)
    store.write_measurements(measurements, families, responses, {PROBED: value})


def write_missed(store: Profile, found: Iterable[JobResult], families: Mapping[str, str]) -> None:
    """Keep what the rounds that are done say of pairs that they were not about, such as another share's: of each pair
    as soon as all rounds have come, in any order, and nothing before."""
    done, waiting = probed(store), dict[Pair, list[JobResult]]()
    for one in found:
        rounds = waiting.setdefault(one.pair, [])
        rounds.append(one)
        if sum(int(each.prompts[1] or 0) - each.prompts[0] for each in rounds) == done.prompts:
            _write_pair(store, sorted(waiting.pop(one.pair), key=lambda each: each.prompts[0]), done, families)


def _write_pair(store: Profile, rounds: Sequence[JobResult], done: Probed, families: Mapping[str, str]) -> None:
    pair, sums = rounds[0].pair, dict[str, Sums]()
    for one in rounds:
        sums |= {metric: _wider(sums.get(metric), new) for metric, new in one.responses.items()}
    measurements = [measurement_of(*pair, metric, done.readings[metric], its) for metric, its in sums.items()]
    store.write_measurements(measurements, families, [response_of(pair, metric, its) for metric, its in sums.items()])


def _longer(old: Mapping[str, Reading], new: Mapping[str, Reading]) -> dict[str, Reading]:
    none = Reading((), (), False)
    return {
        name: Reading(old.get(name, none).strata + its.strata, old.get(name, none).clusters + its.clusters, its.signed)
        for name, its in new.items()
    }


def _wider(old: Sums | None, new: Sums) -> Sums:
    return new if old is None else np.concatenate([old, new], axis=1)
