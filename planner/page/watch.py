"""Notices that the profile's file was replaced or changed while its page is open."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bitplan.planner.errors import UserError
from bitplan.planner.texts import system_reason


class ReplacedError(UserError):
    """The profile is not the one that the page shows."""


class WatchedFile:
    """A file as it was when it was read.

    Attributes:
        path: the file.
        digest: the SHA-256 of what it held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._status, self.digest = _status(path), _digest(path)

    def check(self) -> None:
        """Raises ReplacedError where the file is gone or holds something else. It is read again only where the
        system states another file, size or time of change."""
        status = _status(self.path)
        if status == self._status:
            return
        if _digest(self.path) != self.digest:
            raise replaced(self.path)
        self._status = status


def replaced(path: Path) -> ReplacedError:
    """The error for a profile that is not the one of the page."""
    return ReplacedError(f"{path.name} was replaced while this page was open; reload the page to plan with the new one")


def _status(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        raise _gone(path, error) from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _gone(path, error) from error


def _gone(path: Path, error: OSError) -> ReplacedError:
    return ReplacedError(f"cannot read {path}: {system_reason(error)}; put the profile back, or stop the explorer")
