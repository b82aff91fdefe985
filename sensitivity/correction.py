"""Corrects estimates by probes with exhaustive measurements of some candidates. Imports no torch.

Candidates from the whole range of estimates are measured both ways. Least squares fit the ratio as a power of the
estimate, log(measured / estimate) = a + b (log estimate - centre). The other estimates are multiplied by it if the fit
is significant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_EXPONENT = 700.0  # of a factor; exp of 710 is beyond float64
SIGNIFICANT = 0.05  # probability that scatter alone would fit as well


@dataclass(frozen=True)
class Correction:
    """Factors for estimates.

    Attributes:
        bias: a.
        slope: b.
        centre: mean of the logarithms of the estimates.
        low, high: their range, beyond which the factor is constant.
        scatter: standard deviation of one log ratio about the fit.
        checks: the number of candidates that were measured both ways.
        applies: whether the fit is significant; otherwise every factor is 1.
    """

    bias: float
    slope: float
    centre: float
    low: float
    high: float
    scatter: float
    checks: int
    applies: bool

    def factor(self, estimate: float) -> float:
        """The factor of an estimate; 1 for an estimate that is not positive."""
        if not self.applies or estimate <= 0:
            return 1.0
        logarithm = min(max(math.log(estimate), self.low), self.high)
        exponent = self.bias + self.slope * (logarithm - self.centre)
        return math.exp(min(max(exponent, -MOST_EXPONENT), MOST_EXPONENT))


def fit(estimates: Sequence[float], measured: Sequence[float]) -> Correction | None:
    """Fit a correction; None for fewer than 6 pairs of positive numbers, which are too few."""
    pairs = [
        (math.log(e), math.log(m) - math.log(e)) for e, m in zip(estimates, measured, strict=True) if e > 0 and m > 0
    ]
    if len(pairs) < 6:
        return None
    x, y = np.array(pairs).T
    centre = float(x.mean())
    design = np.stack([np.ones_like(x), x - centre], 1)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = float(np.square(y - design @ coefficients).sum())
    spread = float(np.square(y).sum())
    return Correction(
        float(coefficients[0]), float(coefficients[1]), centre, float(x.min()), float(x.max()),
        math.sqrt(residual / (len(x) - 2)), len(x), chance(spread, residual, len(x)) < SIGNIFICANT,
    )  # fmt: skip


def chance(spread: float, residual: float, count: int) -> float:
    """Return the p-value of an F-test of a fit with two parameters to `count` points.

    The survival function of F with 2 degrees of freedom in the numerator is (residual / spread)^((count - 2) / 2).
    """
    return (residual / spread) ** ((count - 2) / 2) if spread > 0 else 1.0
