"""How well two measurements of the same (layer, scheme) pairs agree: rank correlation and ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.sensitivity.table import ESTIMATES, Measurement

Floats = NDArray[np.float64]

NORMAL = 1.645  # of a 90 % interval
COMMON = 0.5  # share of the prompts' variance that two measurements of the same prompts do not have in common
MOST = 1.0  # variance of a logarithm beyond which a relative error says nothing more


@dataclass(frozen=True)
class Compared:
    """One metric of one (layer, scheme): by the old profile and measured anew. scatter: standard deviation of the
    logarithm of such estimates as the old one, from the profile's own checks; 0 for what was measured."""

    old: Measurement
    new: Measurement
    scatter: float

    @property
    def errors(self) -> tuple[float, float]:
        """Variances of the two logarithms that count when they are compared.

        Both are of the same prompts from the same noise, so that part of what prompts do to them is common: half, it is
        assumed. What an estimate's own error is of, probes and prompts, its standard error does not tell apart; the
        scatter is that of the probes, and the prompts' part is as large as the new one's.
        """
        prompts = _relative(self.new) if self.scatter else _relative(self.old)
        return self.scatter**2 + COMMON * prompts, COMMON * _relative(self.new)


@dataclass(frozen=True)
class Agreement:
    """One metric over the sample. spearman: rank correlation of old and new, low to high: its 90 % interval; clean: the
    same as it would be without the errors of both measurements; factor: median of new / old, which changes no plan;
    spread: standard deviation of log(new / old); noise: what of it those errors explain."""

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
    """Each new measurement beside the old one. scatters: by metric, of the old profile's estimates."""
    found = []
    for one in new:
        before = old[one.layer, one.scheme, one.metric]
        found.append(Compared(before, one, scatters.get(one.metric, 0.0) if before.source in ESTIMATES else 0.0))
    return tuple(found)


def agreement_of(compared: Sequence[Compared], metric: str, family: str) -> Agreement:
    """Of one metric whose losses have no sign, or of one with, for which ratios say nothing: they are nan."""
    mine = [one for one in compared if one.new.metric == metric]
    old, new = (np.array([getattr(one, which).mean for one in mine]) for which in ("old", "new"))
    rank = spearman(old, new)
    low, high = _interval(rank, len(mine))
    if (np.minimum(old, new) <= 0).any() or len(mine) < 2:
        return Agreement(metric, family, len(mine), rank, low, high, math.nan, math.nan, math.nan, math.nan)
    errors = np.array([one.errors for one in mine])
    logs = np.log([old, new])
    sure = np.clip(1 - np.minimum(errors, MOST).mean(0) / np.maximum(logs.var(1, ddof=1), 1e-300), 0.1, 1)
    ratio = logs[1] - logs[0]
    return Agreement(
        metric, family, len(mine), rank, low, high, float(np.clip(rank / math.sqrt(sure.prod()), -1, 1)),
        float(np.exp(np.median(ratio))), float(ratio.std(ddof=1)), float(np.sqrt(errors.sum(1).mean())),
    )  # fmt: skip


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation, ties by their mean rank; nan where one of the two is constant or there are fewer than 3."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _relative(one: Measurement) -> float:
    """Variance of its logarithm, about."""
    return min(MOST, (one.stderr / one.mean) ** 2) if one.mean > 0 else MOST


def _interval(rank: float, pairs: int) -> tuple[float, float]:
    """Fisher's z with the variance that Spearman's coefficient has (Bonett and Wright 2000)."""
    if pairs < 5 or not math.isfinite(rank):
        return math.nan, math.nan
    reach = NORMAL * math.sqrt((1 + rank**2 / 2) / (pairs - 3))
    centre = math.atanh(min(max(rank, -0.999999), 0.999999))
    return math.tanh(centre - reach), math.tanh(centre + reach)
