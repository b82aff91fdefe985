"""Tells the C library's allocator what to do with freed memory, for the length of a `with`.

Process-wide effect: an allocator serves a whole process, and glibc has no other interface than `mallopt`. It cannot be
read back, so each `with` ends with the values that glibc itself arrives at after large blocks were freed. Where the C
library is not glibc nothing happens.
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
    """Within the `with`, freed memory stays with the process.

    Else a large block is returned to the system and paid for again, page by page, or is not, depending on what was
    freed before: the same convolution takes once or twice the time.
    """
    with _set({_MMAP_COUNT: 0, _TRIM: 2**31 - 1}):
        yield


@contextmanager
def lean_memory(wanted: bool = True) -> Iterator[None]:
    """Within the `with`, if wanted, blocks of 1 MiB or more are the system's again as soon as they are freed.

    The holes that they would leave among small blocks are memory that the process holds, too.
    """
    with _set({_MMAP_SIZE: 1 << 20} if wanted else {}) as libc:
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
