"""Where estimates by probes hold: some are measured exhaustively, too, and the others moved by what that showed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace

from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.sensitivity.correction import Correction, fit
from bitplan.sensitivity.responses import measurement_of
from bitplan.sensitivity.table import Measurement

CORRECTIONS = "corrections"  # name in the baseline
_TINY = 1e-300


def estimates_of(store: Profile) -> dict[tuple[str, str, str], Measurement]:
    """What the probes alone say, by (layer, scheme, metric)."""
    readings = probed(store).readings
    return {key: measurement_of(*key, readings[key[2]], sums) for key, sums in responses_of(store).items()}


def choose_checks(store: Profile, count: int) -> list[Pair]:
    """So many estimated pairs, evenly over all predicted sizes, those that were checked before among them.

    Size: the mean logarithm of the losses without a sign, so that the smallest are as well represented as the largest.
    """
    signed = {name for name, reading in probed(store).readings.items() if reading.signed}
    sizes: dict[Pair, list[float]] = {}
    for (layer, scheme, metric), estimate in estimates_of(store).items():
        if metric not in signed:
            sizes.setdefault((layer, scheme), []).append(math.log(max(estimate.mean, _TINY)))
    order = sorted(sizes, key=lambda pair: sum(sizes[pair]))
    places = {int((i + 0.5) * len(order) / count) for i in range(count)} if order else set()
    return [order[place] for place in sorted(places)]


def correct(store: Profile, families: Mapping[str, str]) -> dict[str, Correction]:
    """Fit what the exhaustive measurements in the profile say, and write anew whatever is an estimate. Metrics with a
    sign are left as they are."""
    estimates, readings = estimates_of(store), probed(store).readings
    exact = {(m.layer, m.scheme, m.metric): m for m in store.measurements() if m.source == "exhaustive"}
    fits: dict[str, Correction] = {}
    for metric in (name for name, reading in readings.items() if not reading.signed):
        both = [key for key in estimates if key[2] == metric and key in exact]
        if found := fit([estimates[key].mean for key in both], [exact[key].mean for key in both]):
            fits[metric] = found
    moved = [_moved(m, fits.get(m.metric)) for key, m in estimates.items() if key not in exact]
    store.write_measurements(moved, families, (), {CORRECTIONS: {name: asdict(its) for name, its in fits.items()}})
    return fits


def corrections_of(store: Profile) -> dict[str, Correction]:
    """What the profile's estimates were corrected by."""
    return {name: Correction(**its) for name, its in store.baseline().get(CORRECTIONS, {}).items()}


def _moved(estimate: Measurement, correction: Correction | None) -> Measurement:
    if correction is None or not correction.applies:
        return estimate
    factor = correction.factor(estimate.mean)
    return replace(estimate, mean=factor * estimate.mean, stderr=factor * estimate.stderr, source="corrected")
