"""Paths that the user gives, and files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from bitplan.planner.errors import UserError
from bitplan.plans.files import PathError as PathError
from bitplan.plans.files import inside as inside
from bitplan.plans.files import plain_name as plain_name
from bitplan.plans.files import written as written

PathLike = str | Path


def make_folder(folder: Path) -> None:
    """Makes the folder and its parents. Raises UserError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from None


def check_place(path: PathLike, option: str = "--out") -> None:
    """Checks before slow work that the folder of `path` exists. Raises UserError, which names the option to change."""
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"the folder of {path} does not exist; make it, or choose another {option}")


def write_text(text: str, path: Path) -> None:
    """Writes the text to `path` in one move. Raises UserError where that fails."""
    try:
        with written(path) as partial:
            partial.write_text(text, "utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from None
