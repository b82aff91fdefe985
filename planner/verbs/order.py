"""Recognizes files in the place of others by their kinds, and says the right order. Imports no torch.

One policy for all verbs: what is in the wrong place is refused with the command as it should be, never taken silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.errors import UserError
from bitplan.planner.files import FOLDER, PIPELINE, PathError, kind_of
from bitplan.planner.pipelines.references import is_reference
from bitplan.planner.scenes import SCENES
from bitplan.planner.texts import shell_command

if TYPE_CHECKING:
    from bitplan.planner.verbs.parameters import Parameter

SWEEP = "sweep.json"
KINDS = {  # what a verb may take -> how it is called, and what to name instead of something else
    "profile": ("a profile", "name a file that `bitplan profile` wrote"),
    "plan": ("a plan", "name a file that `bitplan solve` wrote"),
    "pipeline": ("a pipeline", f"name `{SCENES}`, a folder, a hub id, or package.module:name"),
    "run": ("the folder of a sweep", "name a folder that `bitplan sweep` wrote"),
}


def kind_of_input(value: Any) -> str | None:
    """One of KINDS, by the contents of what a value names; None for anything else and where that is not known."""
    if not isinstance(value, (str, Path)):
        return None
    if value == SCENES or is_reference(str(value)):
        return "pipeline"
    try:
        found = kind_of(Path(value))
    except (PathError, ValueError):
        return None
    if found == FOLDER:
        inside = {"pipeline": PIPELINE, "run": SWEEP}
        return next((kind for kind, name in inside.items() if (Path(value) / name).is_file()), None)
    if found is None and _is_published(value):
        return "plan"
    return found if found in KINDS else None


def check_order(command: str, rows: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    """Raises UserError where a value is of another kind than its word takes, with the right order if there is one."""
    for word, row in rows.items():
        for value in _flat(values[word]):
            kind = kind_of_input(value) if row.takes else None
            if kind and kind not in row.takes:
                raise UserError(_sentence(command, (word, value, kind), rows, values))


def _sentence(
    command: str, wrong: tuple[str, Any, str], rows: Mapping[str, Parameter], values: Mapping[str, Any]
) -> str:  # fmt: skip
    word, value, kind = wrong
    wanted = " or ".join(KINDS[each][0] for each in rows[word].takes)
    advice = "; ".join(KINDS[each][1] for each in rows[word].takes)
    if ordered := _ordered({word: row for word, row in rows.items() if row.argument}, values):
        line = shell_command("bitplan", command, *ordered)
        advice = f"the order is {' '.join(word.upper() for word, row in rows.items() if row.argument)}: {line}"
    return f"{value} is {KINDS[kind][0]}, where {wanted} is needed; {advice}"


def _ordered(rows: Mapping[str, Parameter], values: Mapping[str, Any]) -> list[Any]:
    """The values of the arguments, each at a word that takes its kind; empty where there is no such order."""
    rest = [value for word in rows for value in _flat(values[word])]
    ordered: list[Any] = []
    for row in rows.values():
        kinds = [(value, kind_of_input(value)) for value in rest]
        fitting = [value for value, kind in kinds if kind and kind in row.takes]
        fitting = fitting or [value for value, kind in kinds if kind is None]
        taken = fitting if row.many else fitting[:1]
        if not taken:
            return []
        ordered += taken
        rest = [value for value in rest if value not in taken]
    return [] if rest else ordered


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _is_published(value: str | Path) -> bool:
    from bitplan.planner.choice.published import plan_file

    try:
        return plan_file(value) != Path(value)
    except UserError:
        return False
