"""Times the call of a layer under the cache conditions of a model."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch

_REPEATS, _FEWEST, _BUDGET = 25, 5, 0.1  # at most _REPEATS calls or _BUDGET s, at least _FEWEST
_LARGEST = 1 << 26  # bytes, more than a processor's last-level cache


class CacheLoad:
    """Fills the caches, as the rest of a model does between two calls of one of its layers."""

    def __init__(self, size: int) -> None:
        """size: bytes of the model."""
        self._values = torch.ones(min(size, _LARGEST) // 4, dtype=torch.float32, device="cpu")

    def run(self) -> None:
        self._values.sum()


@torch.no_grad()
def timing_of(run: Callable[[], object], before: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """The median wall time of a call in milliseconds, after a warm-up, and its standard error.

    The error is that of a median of independent normal times: 1.2533 standard deviations over the root of their number,
    with the deviation estimated from the quartiles. before: runs before each call, not timed.
    """
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) <= _FEWEST or (len(seconds) <= _REPEATS and time.perf_counter() - begin < _BUDGET):
        before()
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    low, median, high = statistics.quantiles(seconds[1:], n=4, method="inclusive")
    deviation = (high - low) / 1.349
    return median * 1e3, 1.2533 * deviation / math.sqrt(len(seconds) - 1) * 1e3


def median_ms(run: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The median of `timing_of`."""
    return timing_of(run, before)[0]
