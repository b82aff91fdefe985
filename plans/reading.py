"""Reads the files that users name, and those that these name, each of a limited size. Imports no torch.

Files are regular ones: a device never ends, and one of gigabytes would fill the memory before any check. A text may
also come from a pipe, as `<(command)` of a shell gives, whose writer ends in time.
"""

from __future__ import annotations

import errno
import json
import os
import select
import stat
import time
from collections.abc import Iterator
from typing import Any, NoReturn

MOST = 64 * 2**20  # bytes of a text file that is read
WAIT = 10.0  # seconds until a pipe must have ended
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a pipe does not wait
_PART = 2**16  # bytes of a pipe at a time


def read_bytes(path: str | os.PathLike[str], most: int | None = MOST, length: int | None = None) -> bytes:
    """Returns the bytes of a regular file.

    most: the largest size in bytes, or None; length: how many bytes from the start, or None for all. Raises OSError,
    whose `strerror` says why, also for anything that is not a regular file, and for a larger file.
    """
    with open(_opened(path), "rb") as file:
        _check(os.fstat(file.fileno()), most)
        return file.read(-1 if length is None else length)


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Returns the text of a regular file, or of a pipe that ends within WAIT.

    Raises UnicodeDecodeError, and OSError as `read_bytes`, also for a pipe that nothing writes to.
    """
    with open(_opened(path), "rb", buffering=0) as file:
        facts = os.fstat(file.fileno())
        if stat.S_ISFIFO(facts.st_mode) and hasattr(os, "O_NONBLOCK"):
            return b"".join(_parts(file.fileno())).decode(encoding)
        _check(facts, MOST)
        return file.read().decode(encoding)


def parse_json(text: str, distinct: bool = False) -> Any:
    """Returns the data of a JSON text. Raises ValueError, also for NaN, infinity and deep nesting.

    distinct: also refuse a key that is given twice; else the last one counts.
    """
    try:
        return (_DISTINCT if distinct else _DECODER).decode(text)
    except RecursionError:
        raise ValueError("it is nested too deep, beyond the recursion limit") from None


def _opened(path: str | os.PathLike[str]) -> int:
    try:
        return os.open(path, _FLAGS)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error)) from None


def _parts(pipe: int) -> Iterator[bytes]:
    """What is written to the pipe."""
    os.set_blocking(pipe, False)
    end, size = time.monotonic() + WAIT, 0
    while True:
        try:
            part = os.read(pipe, _PART)
        except BlockingIOError:  # a writer has not written yet
            if not select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]:
                raise OSError(errno.ETIMEDOUT, f"it is a pipe that has not ended after {WAIT:g} s") from None
            continue
        size += len(part)
        if not size:
            raise OSError(errno.EINVAL, "it is a pipe that nothing is written to")
        if size > MOST:
            raise OSError(errno.EFBIG, f"it is a pipe of more than {MOST:,} bytes")
        if not part:
            return
        yield part


def _check(facts: os.stat_result, most: int | None) -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, and only regular files are read")
    if most is not None and facts.st_size > most:
        raise OSError(errno.EFBIG, f"it has {facts.st_size:,} bytes, and at most {most:,} are read")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"a key is given twice, among {', '.join(name for name, _ in pairs)[:60]}")
    return values


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made once: profiles hold many short texts
_DISTINCT = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once)
