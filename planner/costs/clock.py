"""Times the call of a layer under the cache conditions of a model."""

from __future__ import annotations

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
        self._values = torch.ones(min(size, _LARGEST) // 4)

    def run(self) -> None:
        self._values.sum()


@torch.no_grad()
def median_ms(run: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """The median wall time of a call in milliseconds, after a warm-up. before: runs before each call, not timed."""
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) <= _FEWEST or (len(seconds) <= _REPEATS and time.perf_counter() - begin < _BUDGET):
        before()
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) * 1e3
