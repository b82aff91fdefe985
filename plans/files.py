"""Files that are written whole or not at all, of which kind they are, and names of files that are read from a file.

Imports no torch.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
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


# Kind of file that a verb writes -> how it is called, and the kinds of existing files that it may replace.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "profile": ("a profile", ("profile",)),
    "plan": ("a plan", ("plan",)),
    "page": ("an HTML page", ("page",)),
    "json": ("a JSON file", ("json",)),
    "picture": ("a picture", ("picture", "binary")),
    "text": ("a text file", ("text", "json")),
    "binary": ("a binary file", ("binary",)),
}
_BEGINNINGS = (  # how files begin, in lower case -> their kind; the first that fits
    (b"sqlite format 3\0", "profile"), (b"<!doctype html", "page"), (b"<html", "page"),
    (b"{", "json"), (b"\x89png", "picture"), (b"\xff\xd8", "picture"), (b"gif8", "picture"),
    (b"riff", "picture"), (b"ii*\0", "picture"), (b"mm\0*", "picture"), (b"\x93numpy", "picture"),
)  # fmt: skip
_PLAN = re.compile(rb"^bitplan: *\d", re.MULTILINE)  # comments may stand above
_OTHERS = {"folder": "a folder", "device": "a device or a socket", "stream": "a device or a pipe"}
_DESCRIPTORS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")


def kind_of(path: Path) -> str | None:
    """Returns the kind of what lies at `path`: one of KINDS, by how the file begins, `folder`, `stream` for a pipe and
    a character device, or `device`; None for nothing and for an empty file. Raises PathError where it cannot be read.
    """
    if _descriptor(path) is not None:
        return "stream"
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "folder"
        if not stat.S_ISREG(mode):
            return "stream" if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) else "device"
        with path.open("rb") as file:
            return _kind_of_bytes(file.read(4096))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PathError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose another --out"
                        ) from None  # fmt: skip


def check_replaceable(path: Path, kind: str) -> str | None:
    """Returns the `kind_of` what lies at `path`. Raises PathError where a file of this kind must not take its place."""
    called, replaceable = KINDS[kind]
    found = kind_of(path)
    streamed = found == "stream" and kind != "profile"
    if found is not None and found not in replaceable and not streamed:
        what = _OTHERS.get(found) or KINDS[found][0]
        raise PathError(f"{path} is {what}, and {called} would be written; choose another --out")
    return found


def beside(path: Path, name: str) -> Path:
    """Returns the path of another file that a verb writes beside `path`. Raises PathError beside a device or a pipe."""
    if kind_of(path) == "stream":
        raise PathError(f"{path} is {_OTHERS['stream']}, and takes one file, not {name} too; choose another --out")
    return path.with_name(name)


@contextmanager
def written(path: Path, kind: str) -> Iterator[Path]:
    """Yields a path, with the ending of `path`, to write a file of this kind to; on success it replaces `path` in one
    move, else it is removed. A reader never sees half a file. What is written to a pipe or a character device, such as
    /dev/stdout, is sent there at the end; these are never replaced.

    kind: a key of KINDS. Raises OSError where the file cannot be written, and as `check_replaceable`.
    """
    if check_replaceable(path, kind) == "stream":
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / path.name
            yield partial
            _send(partial, path)
        return
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)


def _kind_of_bytes(start: bytes) -> str | None:
    if not start:
        return None
    lower = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if _PLAN.search(lower):
        return "plan"
    known = next((kind for beginning, kind in _BEGINNINGS if lower.startswith(beginning)), None)
    return known or ("binary" if b"\0" in start else "text")


def _descriptor(path: Path) -> int | None:
    """Returns the number of a file descriptor of this process that the path names, such as 1 for /dev/stdout."""
    place = os.path.abspath(path)
    match = _DESCRIPTOR.fullmatch(place)
    return int(match[1]) if match else _DESCRIPTORS.get(place)


def _send(file: Path, stream: Path) -> None:
    """Writes the file to a pipe or a device. A descriptor is shared, so that others continue behind what is written."""
    number = _descriptor(stream)
    target = os.open(stream, os.O_WRONLY | _NO_WAIT) if number is None else os.dup(number)  # ENXIO: nobody reads
    if number is None:
        os.set_blocking(target, True)
    with open(target, "wb") as out, file.open("rb") as source:
        shutil.copyfileobj(source, out)
