"""Losses out of responses: of one (layer, scheme), or of many at once, whose responses add up first. Needs no torch.

A response is v.(change of a reading), for probe k and sample s (see `bitplan.sensitivity.probes.estimate`). For a
metric without a
sign its square, on average over probes, is the sample's loss to second order; for a signed one it is itself the loss
to first order. (Second orders of a signed one that are at hand, such as what a cosine loses on the sphere, made
predictions worse where they were tried: those of the network, of either sign, are as large.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.sensitivity.table import Measurement, MeasurementError, describe, summarise

Sums = NDArray[np.floating]


@dataclass(frozen=True)
class Reading:
    """How the samples of one metric are to be read. strata, clusters: timestep and prompt of each, as `summarise`
    takes them; signed: as in `Metric`."""

    strata: tuple[int, ...]
    clusters: tuple[int, ...]
    signed: bool


def samples_of(reading: Reading, sums: Sums) -> NDArray[np.float64]:
    """The loss of each sample, (S,). sums: (K, S), of one (layer, scheme) or added up over several."""
    wide = np.asarray(sums, np.float64)
    return wide[0] if reading.signed else np.square(wide).mean(axis=0)


def measurement_of(layer: str, scheme: str, metric: str, reading: Reading, sums: Sums) -> Measurement:
    """The estimate and its standard error. Raises MeasurementError for responses that are not finite.

    Different prompts have probes of their own, so that what the probes add to the error shows in the spread between
    prompts.
    """
    what = describe(layer, scheme, metric)
    if len(reading.clusters) != sums.shape[1]:
        raise MeasurementError(f"{what}: {sums.shape[1]} responses of {len(reading.clusters)} samples; profile again")
    mean, stderr, count = summarise(samples_of(reading, sums).tolist(), reading.strata, reading.clusters, what)
    return Measurement(layer, scheme, metric, mean, stderr, count, source="probes")
