"""Corrects estimates by probes: some pairs are also measured exhaustively, and a fit to these corrects the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace

from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.sensitivity.correction import Correction, fit
from bitplan.sensitivity.responses import measurement_of
from bitplan.sensitivity.table import Measurement, MeasurementError

CORRECTIONS = "corrections"  # its name in the baseline
_TINY = 1e-300


def estimates_of(store: Profile) -> dict[tuple[str, str, str], Measurement]:
    """Returns the uncorrected estimates of the probes by (layer, scheme, metric), of layers that ran."""
    known = probed(store)
    return {
        key: measurement_of(*key, known.readings[key[2]], sums)
        for key, sums in responses_of(store).items()
        if key[0] not in known.idle
    }


def choose_checks(store: Profile, count: int) -> list[Pair]:
    """Returns `count` estimated pairs to measure exhaustively, evenly spaced in the order of their predicted losses.

    The order is by the mean logarithm of the unsigned losses. The result is the same whether or not some of the pairs
    were measured already.
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
    """Fits a correction for each metric to the exhaustive measurements and rewrites all estimates with it.

    Metrics with a sign are not corrected.
    """
    estimates, readings = estimates_of(store), probed(store).readings
    exact = {(m.layer, m.scheme, m.metric): m for m in store.measurements() if m.source == "exhaustive"}
    fits: dict[str, Correction] = {}
    for metric in (name for name, reading in readings.items() if not reading.signed):
        both = [key for key in estimates if key[2] == metric and key in exact]
        if correction := fit([estimates[key].mean for key in both], [exact[key].mean for key in both]):
            fits[metric] = correction
    corrected = [_corrected(m, fits.get(m.metric)) for key, m in estimates.items() if key not in exact]
    store.write_measurements(
        corrected, families, (), {CORRECTIONS: {name: asdict(each) for name, each in fits.items()}}
    )
    return fits


def corrections_of(store: Profile) -> dict[str, Correction]:
    """Returns the correction of each metric in the profile."""
    return {name: Correction(**values) for name, values in store.baseline().get(CORRECTIONS, {}).items()}


def _corrected(estimate: Measurement, correction: Correction | None) -> Measurement:
    if correction is None or not correction.applies or correction.alarm:
        return estimate
    factor = correction.factor(estimate.mean)
    return replace(estimate, mean=factor * estimate.mean, stderr=factor * estimate.stderr, source="corrected")


def check_estimates(fits: Mapping[str, Correction]) -> None:
    """Raises MeasurementError if checks contradict the estimates of a metric, which are then in the profile as they
    are."""
    for metric, its in fits.items():
        if its.alarm:
            raise MeasurementError(
                f"estimates by probes do not hold for this model: {metric}: {its.alarm}; the profile keeps what was "
                "measured: continue it with --method exhaustive"
            )
