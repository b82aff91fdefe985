"""Paths that the user gives, and files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.interrupts import current
from bitplan.planner.texts import system_reason
from bitplan.plans.files import PathError as PathError
from bitplan.plans.files import beside as beside
from bitplan.plans.files import check_replaceable
from bitplan.plans.files import inside as inside
from bitplan.plans.files import kind_of as kind_of
from bitplan.plans.files import plain_name as plain_name
from bitplan.plans.files import written as written_whole
from bitplan.plans.plan import Plan, fitted_name, save_plan
from bitplan.plans.reading import read_bytes as read_bytes
from bitplan.plans.reading import read_text as read_text

PathLike = str | Path
PIPELINE = "model_index.json"  # the file of a pipeline's folder
PROFILE = "profile"  # a key of `bitplan.plans.files.KINDS`
FOLDER = "folder"  # what a verb writes that writes several files


def make_folder(folder: Path) -> None:
    """Makes the folder and its parents. Raises UserError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {system_reason(error)}; choose another --out") from None


def check_place(path: PathLike, kind: str, inputs: Iterable[object] = (), continues: bool = False) -> None:
    """Checks before slow work that a file of this kind, or a folder, may be written to `path`.

    One policy for all verbs: neither an input nor a file of another kind is replaced; a profile, which holds
    measurements, is continued or refused; other files of the kind that is written are replaced.

    kind: a key of `bitplan.plans.files.KINDS`, or `folder`; inputs: what the verb reads, paths among it; continues:
    whether the verb continues what is there. Raises UserError, PathError.
    """
    path = Path(path)
    if same := [each for each in inputs if _is_same(path, each)]:
        raise UserError(f"{path} is the same as {same[0]}, which is read; choose another --out")
    if kind == FOLDER:
        if kind_of(path) not in (None, FOLDER) or path.is_file():
            raise UserError(f"{path} is not a folder, and several files would be written into it; choose another --out")
        if (path / PIPELINE).is_file():
            raise UserError(f"{path} is the folder of a pipeline; choose another --out")
        return
    if not path.absolute().parent.is_dir():
        raise UserError(f"the folder of {path} does not exist; make it, or choose another --out")
    if check_replaceable(path, kind) == PROFILE and not continues:
        raise UserError(f"{path} exists already, and a profile is never replaced; choose another --out, or delete it")


def _is_same(path: Path, other: object) -> bool:
    if not isinstance(other, (str, Path)) or not other:
        return False
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one of them does not exist
        return False


@contextmanager
def written(path: Path, kind: str) -> Iterator[Path]:
    """`bitplan.plans.files.written`, and the file is among those that an interrupted verb has kept."""
    with written_whole(path, kind) as partial:
        yield partial
    current().files.append(path)


def write_text(text: str, path: Path, kind: str = "text") -> None:
    """Writes the text to `path` in one move. Raises UserError where that fails, and as `written`.

    kind: a key of `bitplan.plans.files.KINDS`.
    """
    try:
        with written(path, kind) as partial:
            partial.write_text(text, "utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {system_reason(error)}; choose another --out") from None


def write_plan(plan: Plan, path: Path) -> list[Path]:
    """Writes a plan, as `bitplan.plans.plan.save_plan`; returns its file and that of its fitted parameters, if any."""
    save_plan(plan, path)
    current().files += (files := plan_files(plan, path))
    return files


def plan_files(plan: Plan, path: Path) -> list[Path]:
    """The files of a plan at `path`."""
    return [path, *([path.with_name(fitted_name(path))] if plan.fitted else [])]


def write_json(value: Any, path: Path) -> None:
    """Writes the value as JSON. Raises as `write_text`."""
    write_text(json.dumps(value, indent=1) + "\n", path, "json")
