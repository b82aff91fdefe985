"""Probes in rounds of a few prompts: after each, the profile holds an estimate of everything, the surer the later.

A round is one transaction. Interrupted or killed, the same command goes on with the next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitplan.planner.profiles.file import ProfileError
from bitplan.planner.profiles.profile import Pair, Profile, Response
from bitplan.sensitivity.responses import Reading, Sums
from bitplan.sensitivity.table import describe

PROBED = "probed"  # name in the baseline


@dataclass(frozen=True)
class Probed:
    """What the responses in a profile are of. prompts: so many of the first; readings: by metric; unreached: layers
    that were probed in vain."""

    prompts: int
    readings: Mapping[str, Reading]
    unreached: tuple[str, ...] = ()


def probed(store: Profile) -> Probed:
    """No prompts before the first round."""
    found = store.baseline().get(PROBED, {"prompts": 0, "readings": {}})
    readings = {
        name: Reading(tuple(its["strata"]), tuple(its["clusters"]), its["signed"])
        for name, its in found["readings"].items()
    }
    return Probed(found["prompts"], readings, tuple(found.get("unreached", ())))


def response_of(pair: Pair, metric: str, sums: Sums) -> Response:
    """As the profile holds it."""
    return Response(*pair, metric, len(sums), np.asarray(sums, "<f4").tobytes())


def responses_of(store: Profile, pairs: Mapping[str, str] | None = None) -> dict[tuple[str, str, str], Sums]:
    """(layer, scheme, metric) -> (K, S); with `pairs`, of each layer's scheme alone. Raises ProfileError."""
    samples = {name: len(reading.clusters) for name, reading in probed(store).readings.items()}
    found: dict[tuple[str, str, str], Sums] = {}
    for r in store.responses(pairs):
        if len(r.sums) != 4 * r.probes * samples.get(r.metric, -1):
            what = describe(r.layer, r.scheme, r.metric)
            raise ProfileError(f"{store.path}: {len(r.sums)} bytes of responses for {what} are damaged; profile again")
        found[r.layer, r.scheme, r.metric] = np.frombuffer(r.sums, "<f4").reshape(r.probes, -1)
    return found
