"""Sets how the C library's allocator treats freed memory, within a `with`.

Process-wide effect: an allocator serves a whole process, and glibc has no other interface than `mallopt`. Its values
cannot be read, so each `with` ends by setting those that glibc reaches after large blocks were freed. With other C
libraries there is no effect.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_TRIM, _MMAP_SIZE, _MMAP_COUNT = -1, -3, -4  # parameters of mallopt
_USUAL = {_MMAP_COUNT: 1 << 16, _MMAP_SIZE: 1 << 25, _TRIM: 1 << 26}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within the `with`, the process keeps freed memory.

    Otherwise the allocator returns large blocks to the system, or not, depending on what was freed before: the page
    faults of new blocks double the time of some convolutions.
    """
    with _set({_MMAP_COUNT: 0, _TRIM: 2**31 - 1}):
        yield


@contextmanager
def lean_memory(active: bool = True) -> Iterator[None]:
    """Within the `with`, blocks of 1 MiB or more return to the system when they are freed. active: False has no effect.

    Otherwise they leave holes between small blocks, which still count as memory of the process.
    """
    with _set({_MMAP_SIZE: 1 << 20} if active else {}) as libc:
        if libc:
            libc.malloc_trim(0)
        yield


@contextmanager
def _set(values: Mapping[int, int]) -> Iterator[ctypes.CDLL | None]:
    if not values or platform.libc_ver()[0] != "glibc":
        yield None
        return
    libc = ctypes.CDLL(None)
    for parameter, value in values.items():
        libc.mallopt(parameter, value)
    try:
        yield libc
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
