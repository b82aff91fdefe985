"""What exhaustive measurements say of estimates by probes: where linearity ends, and by how much. Needs no torch.

Some candidates, from every range of predicted size, are measured both ways. The ratio of the two is fitted as a power
of the predicted size, log(measured / estimate) = a + b (log estimate - centre), by least squares, and the estimates of
the others are multiplied by it where the fit explains more than scatter does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGNIFICANT = 0.05  # chance at which scatter alone would fit as well


@dataclass(frozen=True)
class Correction:
    """Factors for estimates. bias: a; slope: b; centre: of the logarithms, low and high: their range, beyond which the
    factor stays what it is at the end; scatter: standard deviation of one log ratio about the fit; checks: how many;
    applies: whether the fit is significant; else every factor is 1."""

    bias: float
    slope: float
    centre: float
    low: float
    high: float
    scatter: float
    checks: int
    applies: bool

    def factor(self, estimate: float) -> float:
        """What to multiply an estimate with; 1 for those that are not positive."""
        if not self.applies or estimate <= 0:
            return 1.0
        place = min(max(math.log(estimate), self.low), self.high)
        return math.exp(self.bias + self.slope * (place - self.centre))


def fit(estimates: Sequence[float], measured: Sequence[float]) -> Correction | None:
    """None for fewer than 6 pairs of positive numbers: nothing can be said from those."""
    pairs = [(math.log(e), math.log(m / e)) for e, m in zip(estimates, measured, strict=True) if e > 0 and m > 0]
    if len(pairs) < 6:
        return None
    x, y = np.array(pairs).T
    centre = float(x.mean())
    design = np.stack([np.ones_like(x), x - centre], 1)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    left = float(np.square(y - design @ coefficients).sum())
    spread = float(np.square(y).sum())
    return Correction(
        float(coefficients[0]), float(coefficients[1]), centre, float(x.min()), float(x.max()),
        math.sqrt(left / (len(x) - 2)), len(x), chance(spread, left, len(x)) < SIGNIFICANT,
    )  # fmt: skip


def chance(spread: float, left: float, count: int) -> float:
    """Probability that scatter about 0 leaves so small a share to a fit of two numbers: F-test, whose survival function
    with 2 degrees of freedom above the line is (left / spread)^((count - 2) / 2)."""
    return (left / spread) ** ((count - 2) / 2) if spread > 0 else 1.0
