"""How many bits a noise flips, and what chance says of a decoding. Needs no torch.

A bit is read off the sign of a statistic, whose margin m is the statistic times the bit's own sign. A Gaussian noise of
variance s^2 and no mean flips it with probability Q(m / s), the bit error rate of antipodal signals (Proakis & Salehi,
Digital Communications). Where margins differ between bits, the rate is the mean of Q over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def upper_tail(x: float) -> float:
    """Q(x): the probability that a standard normal number exceeds x."""
    return math.erfc(x / math.sqrt(2)) / 2


def error_rate(margins: Sequence[float], noise: float) -> float:
    """Mean of Q(m / s) over margins m, for a noise power s^2 on each; without noise, the share of wrong bits."""
    if noise <= 0:
        return sum(margin < 0 for margin in margins) / len(margins)
    deviation = math.sqrt(noise)
    return sum(upper_tail(margin / deviation) for margin in margins) / len(margins)


def cap_for(margins: Sequence[float], rate: float) -> float:
    """The most noise power at which `error_rate` is at most `rate`: what to hand `solve --cap mark=`.

    Raises ValueError for a rate that no noise brings about: half or more, or no more than without noise.
    """
    floor = error_rate(margins, 0.0)
    if not floor < rate < 0.5:
        raise ValueError(
            f"an error rate of {rate:g} is not between {floor:g}, that without noise, and 0.5; take another"
        )
    low, high = 0.0, max(margin * margin for margin in margins)
    while error_rate(margins, high) < rate:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if error_rate(margins, middle) <= rate else (low, middle)
    return low


def chance(agreeing: int, bits: int) -> float:
    """The probability that `agreeing` of `bits` fair coins or more fall as the message says: the exact one-sided
    binomial test.

    The message was drawn by fair coins after everything that does not carry it, so that this holds for any weights
    without the mark, whatever their statistics are. Exact: a sum of integers, divided once.
    """
    return sum(math.comb(bits, k) for k in range(agreeing, bits + 1)) / 2**bits
