"""Computes losses from the responses of one (layer, scheme), or from sums of responses of several. Imports no torch.

A response is v.(change of a reading) for probe k and sample s (see `bitplan.sensitivity.probes.estimate`). For an
unsigned metric the mean of its square over probes is the sample's loss to second order. For a signed metric the
response itself is the loss to first order. Second-order terms of signed metrics that are easy to compute, such as that
of a cosine on the sphere, made predictions worse in trials, since those of the network are as large and of either sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.sensitivity.table import Measurement, MeasurementError, describe, summarise

Sums = NDArray[np.floating]


@dataclass(frozen=True)
class Reading:
    """How to read the samples of one metric.

    Attributes:
        strata: the timestep of each sample (see `summarise`).
        clusters: the prompt of each sample (see `summarise`).
        signed: as in `Metric`.
    """

    strata: tuple[int, ...]
    clusters: tuple[int, ...]
    signed: bool


def samples_of(reading: Reading, sums: Sums) -> NDArray[np.float64]:
    """The loss of each sample, (S,). sums: (K, S) responses of one (layer, scheme), or their sum over several."""
    wide = np.asarray(sums, np.float64)
    return wide[0] if reading.signed else np.square(wide).mean(axis=0)


def measurement_of(layer: str, scheme: str, metric: str, reading: Reading, sums: Sums) -> Measurement:
    """The estimate and its standard error. Raises MeasurementError for responses that are not finite.

    Each prompt has probes of its own, so that the spread between prompts contains the error of the probes.
    """
    what = describe(layer, scheme, metric)
    if len(reading.clusters) != sums.shape[1]:
        raise MeasurementError(f"{what}: {sums.shape[1]} responses of {len(reading.clusters)} samples; profile again")
    mean, stderr, count = summarise(samples_of(reading, sums).tolist(), reading.strata, reading.clusters, what)
    return Measurement(layer, scheme, metric, mean, stderr, count, source="probes")
