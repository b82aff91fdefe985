"""Compares two measurements of the same (layer, scheme) pairs: rank correlation and ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.sensitivity.table import ESTIMATES, Measurement, MeasurementError, describe

Floats = NDArray[np.float64]

NORMAL = 1.645  # standard deviations of a 90 % interval
COMMON = 0.5  # share of the prompts' variance that two measurements of the same prompts do not have in common
MOST = 1.0  # bound on the variance of a logarithm, beyond which a relative error is meaningless


@dataclass(frozen=True)
class Compared:
    """Two measurements of one metric of one (layer, scheme).

    Attributes:
        old: from the profile.
        new: measured again.
        scatter: standard deviation of the logarithm of the profile's estimates, from its checks; 0 if `old` is not an
            estimate.
    """

    old: Measurement
    new: Measurement
    scatter: float

    @property
    def errors(self) -> tuple[float, float]:
        """Variances of the two logarithms that matter for a comparison.

        Both measurements use the same prompts and noise. It is assumed that half of the variance between prompts is
        common to them. The standard error of an estimate contains the errors of probes and prompts; the scatter is that
        of the probes, and the error of the prompts is taken from the new measurement.
        """
        prompts = _relative(self.new) if self.scatter else _relative(self.old)
        return self.scatter**2 + COMMON * prompts, COMMON * _relative(self.new)


@dataclass(frozen=True)
class Agreement:
    """The agreement of old and new measurements of one metric.

    Attributes:
        metric: its name.
        family: its family.
        pairs: the number of (layer, scheme).
        spearman: rank correlation of old and new.
        low, high: its 90 % interval.
        clean: the rank correlation corrected for the errors of both measurements.
        factor: median of new / old; a common factor changes no plan.
        spread: standard deviation of log(new / old).
        noise: the part of the spread that the errors explain.
    """

    metric: str
    family: str
    pairs: int
    spearman: float
    low: float
    high: float
    clean: float
    factor: float
    spread: float
    noise: float


def compare(
    old: Mapping[tuple[str, str, str], Measurement], new: Sequence[Measurement], scatters: Mapping[str, float]
) -> tuple[Compared, ...]:
    """Pair each new measurement with the old one. scatters: metric -> scatter of the old profile's estimates."""
    compared = []
    for each in new:
        key = each.layer, each.scheme, each.metric
        if key not in old:
            raise MeasurementError(f"the profile holds no loss of {describe(*key)} to compare with; profile again")
        before = old[key]
        scatter = scatters.get(each.metric, 0.0) if before.source in ESTIMATES else 0.0
        compared.append(Compared(before, each, scatter))
    return tuple(compared)


def agreement_of(compared: Sequence[Compared], metric: str, family: str) -> Agreement:
    """The agreement of one metric. Ratios are nan for a metric with losses <= 0."""
    own = [each for each in compared if each.new.metric == metric]
    old, new = (np.array([getattr(each, side).mean for each in own]) for side in ("old", "new"))
    rank = spearman(old, new)
    low, high = _interval(rank, len(own))
    if (np.minimum(old, new) <= 0).any() or len(own) < 2:
        return Agreement(metric, family, len(own), rank, low, high, math.nan, math.nan, math.nan, math.nan)
    errors = np.array([each.errors for each in own])
    logs = np.log([old, new])
    reliability = np.clip(1 - np.minimum(errors, MOST).mean(0) / np.maximum(logs.var(1, ddof=1), 1e-300), 0.1, 1)
    ratio = logs[1] - logs[0]
    return Agreement(
        metric, family, len(own), rank, low, high, float(np.clip(rank / math.sqrt(reliability.prod()), -1, 1)),
        float(np.exp(np.median(ratio))), float(ratio.std(ddof=1)), float(np.sqrt(errors.sum(1).mean())),
    )  # fmt: skip


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation, with mean ranks for ties; nan if a side is constant or there are fewer than 3 pairs."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _relative(one: Measurement) -> float:
    """The variance of the logarithm, to first order."""
    return min(math.sqrt(MOST), one.stderr / one.mean) ** 2 if one.mean > 0 else MOST


def _interval(rank: float, pairs: int) -> tuple[float, float]:
    """The 90 % interval by Fisher's z with the variance of Spearman's coefficient (Bonett and Wright 2000)."""
    if pairs < 5 or not math.isfinite(rank):
        return math.nan, math.nan
    reach = NORMAL * math.sqrt((1 + rank**2 / 2) / (pairs - 3))
    centre = math.atanh(min(max(rank, -0.999999), 0.999999))
    return math.tanh(centre - reach), math.tanh(centre + reach)
