"""Bit error rates for a noise power, and the significance of a decoding. Needs no torch.

A bit is the sign of a statistic; its margin m is the statistic times the bit's true sign. Gaussian noise of variance
s^2 and mean 0 flips the bit with probability Q(m / s), the bit error rate of antipodal signals (Proakis & Salehi,
Digital Communications). For different margins the rate is the mean of Q over the bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def upper_tail(x: float) -> float:
    """Returns Q(x), the probability that a standard normal variable exceeds x."""
    return math.erfc(x / math.sqrt(2)) / 2


def error_rate(margins: Sequence[float], noise: float) -> float:
    """Returns the mean of Q(m / s) over margins m for a noise power s^2; without noise, the share of wrong bits."""
    if noise <= 0:
        return sum(margin < 0 for margin in margins) / len(margins)
    deviation = math.sqrt(noise)
    return sum(upper_tail(margin / deviation) for margin in margins) / len(margins)


def cap_for(margins: Sequence[float], rate: float) -> float:
    """Returns the largest noise power at which `error_rate` is at most `rate`, for `solve --cap mark=`.

    Raises ValueError for a rate that no noise power reaches: 0.5 or more, or at most the rate without noise.
    """
    floor = error_rate(margins, 0.0)
    if not floor < rate < 0.5:
        raise ValueError(
            f"an error rate of {rate:g} is not between {floor:g}, the rate without noise, and 0.5; give one that is"
        )
    low, high = 0.0, max(margin * margin for margin in margins)
    while error_rate(margins, high) < rate:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if error_rate(margins, middle) <= rate else (low, middle)
    return low


def chance(matches: int, bits: int) -> float:
    """Returns the probability that at least `matches` of `bits` fair coins match: the one-sided binomial test.

    The message is drawn by fair coins independently of any weights without the mark, so the test holds for all such
    weights. The result is exact up to one division.
    """
    return sum(math.comb(bits, k) for k in range(matches, bits + 1)) / 2**bits
