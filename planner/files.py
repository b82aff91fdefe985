"""Paths that the user gives, and files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from bitplan.planner.errors import UserError


def make_folder(folder: Path) -> None:
    """Raises UserError where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from None


PathLike = str | Path
