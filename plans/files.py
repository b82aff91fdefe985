"""Files that are written whole or not at all, and names of files that are read from a file. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 255  # bytes of one part of a name, as file systems allow
_SPECIAL = re.compile(r"[\x00-\x1f\x7f\\:]")  # control characters, and what separates folders and drives on Windows
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices on Windows


class PathError(ValueError):
    """A name in a file that does not stay below the file's folder."""


def plain_name(name: object) -> str:
    """Returns a name that a file may give to another one: a relative path with `/`, which goes down only.

    Raises PathError.
    """
    if not isinstance(name, str):
        raise PathError(f"a file name is a text, not a {type(name).__name__}; make the file again")
    parts = name.split("/")
    if reason := next(filter(None, map(_reason, parts)), None):
        raise PathError(f"{name[:80]!r} is refused as a file name, because {reason}; make the file again")
    return name


def inside(folder: Path, name: object) -> Path:
    """Returns the path of `name`, which was read from a file, below `folder`. Everything that joins a folder with a
    name of a file calls this function. Raises PathError for any other name, and for a link that leaves the folder."""
    path = folder / plain_name(name)
    try:
        left = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # such as a link to itself
        raise PathError(f"{path} cannot be followed ({error}); make the file again") from None
    if left:
        raise PathError(f"{path} is a link that leaves {folder}; make the file again")
    return path


def _reason(part: str) -> str | None:
    """Why a part of a name is refused, or None."""
    if part in ("", ".", ".."):
        return "it must stay below its folder"
    if _SPECIAL.search(part):
        return "it holds a backslash, a colon or a control character"
    if _RESERVED.fullmatch(part) or part[-1] in " .":
        return f"{part[:20]!r} is no name of a file on every system"
    try:
        return f"a part of it is longer than {LONGEST} bytes" if len(part.encode()) > LONGEST else None
    except UnicodeEncodeError:
        return "it is not Unicode text"


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on success it replaces `path` in one move, else it is removed.

    A reader never sees half a file. Raises OSError where the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
