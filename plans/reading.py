"""Reads the files that users name, and those that these name: regular files of a limited size only. Imports no torch.

A pipe or a device could block for ever, or never end; a file of gigabytes would fill the memory before any check.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any, NoReturn

MOST = 64 * 2**20  # bytes of a text file that is read
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe opens at once, and is refused


def read_bytes(path: str | os.PathLike[str], most: int | None = MOST, length: int | None = None) -> bytes:
    """Returns the bytes of a regular file.

    most: the largest size in bytes, or None; length: how many bytes from the start, or None for all. Raises OSError,
    whose `strerror` says why, also for anything that is not a regular file, and for a larger file.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error)) from None
    with open(descriptor, "rb") as file:
        _check(os.fstat(descriptor), most)
        return file.read(-1 if length is None else length)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises OSError, as `read_bytes`, for anything but a regular file."""
    read_bytes(path, None, 0)


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Returns the text of a file. Raises UnicodeDecodeError, and OSError as `read_bytes`."""
    return read_bytes(path).decode(encoding)


def parse_json(text: str) -> Any:
    """Returns the data of a JSON text. Raises ValueError, also for NaN, infinity and deep nesting."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _check(facts: os.stat_result, most: int | None) -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, and only regular files are read")
    if most is not None and facts.st_size > most:
        raise OSError(errno.EFBIG, f"it has {facts.st_size:,} bytes, and at most {most:,} are read")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made once: profiles hold many short texts
