"""The responses of probes in a profile: how they are stored, and what they were measured on.

Probes run in rounds of a few prompts, one transaction each. After every round the profile has an estimate of each pair;
an interrupted command continues with the next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bitplan.planner.profiles.file import ProfileError
from bitplan.planner.profiles.profile import Pair, Profile, Response
from bitplan.sensitivity.responses import Reading, Sums
from bitplan.sensitivity.table import describe

PROBED = "probed"  # its name in the baseline


@dataclass(frozen=True)
class Probed:
    """What the responses in a profile were measured on.

    Attributes:
        prompts: the number of prompts so far, from the first on.
        readings: metric -> how its responses become losses.
        unreached: layers whose responses are not known, such as those on one input for all samples.
        idle: layers that ran on none of these prompts; their responses are 0, and no estimates.
    """

    prompts: int
    readings: Mapping[str, Reading]
    unreached: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


def probed(store: Profile) -> Probed:
    """Returns what the profile has been probed on; 0 prompts before the first round."""
    record = store.baseline().get(PROBED, {"prompts": 0, "readings": {}})
    readings = {
        name: Reading(tuple(each["strata"]), tuple(each["clusters"]), each["signed"])
        for name, each in record["readings"].items()
    }
    return Probed(record["prompts"], readings, *(tuple(record.get(name, ())) for name in ("unreached", "idle")))


def record_of(found: Probed) -> dict[str, Any]:
    """Returns it in the form of the baseline, without lists that are empty."""
    lists = {"unreached": list(found.unreached), "idle": list(found.idle)}
    readings = {name: asdict(each) for name, each in found.readings.items()}
    return {"prompts": found.prompts, "readings": readings} | {name: own for name, own in lists.items() if own}


def response_of(pair: Pair, metric: str, sums: Sums) -> Response:
    """Returns the response of one pair and metric in the form of the profile. sums: (K, S)."""
    return Response(*pair, metric, len(sums), np.asarray(sums, "<f4").tobytes())


def responses_of(store: Profile, pairs: Mapping[str, str] | None = None) -> dict[tuple[str, str, str], Sums]:
    """Returns (layer, scheme, metric) -> (K, S) sums of K probes and S samples.

    pairs: layer -> scheme, to read only these. Raises ProfileError for damaged data.
    """
    samples = {name: len(reading.clusters) for name, reading in probed(store).readings.items()}
    sums: dict[tuple[str, str, str], Sums] = {}
    for r in store.responses(pairs):
        if len(r.sums) != 4 * r.probes * samples.get(r.metric, -1):
            what = describe(r.layer, r.scheme, r.metric)
            raise ProfileError(f"{store.path}: {len(r.sums)} bytes of responses for {what} are damaged; profile again")
        sums[r.layer, r.scheme, r.metric] = own = np.frombuffer(r.sums, "<f4").reshape(r.probes, -1)
        if not np.isfinite(own).all():
            what = describe(r.layer, r.scheme, r.metric)
            raise ProfileError(f"{store.path}: a response for {what} is not finite; profile again")
    return sums
