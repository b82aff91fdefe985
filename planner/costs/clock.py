"""How long a call takes when it comes in the midst of a model."""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_REPEATS, _FEWEST, _BUDGET = 25, 5, 0.1  # at most so many calls, or as many as fit in so many seconds, but never fewer
_LARGEST = 1 << 26  # bytes: more than a processor's last cache holds
_TRIM, _MMAP_SIZE, _MMAP_COUNT = -1, -3, -4  # parameters of glibc's mallopt


class CacheLoad:
    """What a model reads and writes between two calls of one of its layers, and so what the caches are full of."""

    def __init__(self, size: int) -> None:
        """size: bytes of the model."""
        self._held = torch.ones(min(size, _LARGEST) // 4)

    def run(self) -> None:
        self._held.sum()


@contextmanager
def kept_memory() -> Iterator[None]:
    """For the length of the `with`, memory that is freed stays with the process, where its C library is glibc.

    Else a large block is returned to the system and paid for anew, page by page, or is not, depending on what was freed
    before: the same convolution takes once or twice the time.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_COUNT, 0)
    libc.mallopt(_TRIM, 2**31 - 1)
    try:
        yield
    finally:  # to what glibc itself comes to after large blocks were freed
        libc.mallopt(_MMAP_COUNT, 1 << 16)
        libc.mallopt(_MMAP_SIZE, 1 << 25)
        libc.mallopt(_TRIM, 1 << 26)
        libc.malloc_trim(0)


def lean_memory() -> None:
    """From now on, blocks of 1 MiB or more are the system's again as soon as they are freed, where the C library is
    glibc: the holes that they would leave among small ones are memory that the process holds, too."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_SIZE, 1 << 20)
        libc.malloc_trim(0)


@torch.no_grad()
def median_ms(run: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Median wall milliseconds of a call, after one to warm up. before: done before each call, and not timed."""
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) <= _FEWEST or (len(seconds) <= _REPEATS and time.perf_counter() - begin < _BUDGET):
        before()
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) * 1e3
