"""How long a call takes when it comes in the midst of a model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

_REPEATS, _FEWEST, _BUDGET = 25, 5, 0.1  # at most so many calls, or as many as fit in so many seconds, but never fewer
_LARGEST = 1 << 26  # bytes: more than a processor's last cache holds


class CacheLoad:
    """What a model reads and writes between two calls of one of its layers, and so what the caches are full of."""

    def __init__(self, size: int) -> None:
        """size: bytes of the model."""
        self._held = torch.ones(min(size, _LARGEST) // 4)

    def run(self) -> None:
        self._held.sum()


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
