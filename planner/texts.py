"""Results as JSON, as tables and as single lines. Imports no torch."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from os import PathLike, fspath
from typing import Any

from bitplan.plans.checks import printable
from bitplan.plans.names import nearest as nearest
from bitplan.plans.names import nearest_or_all as nearest_or_all


def plain(value: Any) -> Any:
    """Dictionaries, lists, texts, numbers and null: a result by its `to_json` where it has one, a dataclass by its
    fields, a path as text, and a number that is not finite as null."""
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [plain(part) for part in value]
    if isinstance(value, PathLike):
        return fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(rows: Sequence[Mapping[str, Any]] | Iterable[Sequence[Any]], headers: Sequence[str] | str = "keys") -> str:
    """A Markdown table: one column a key of the rows, or one a header; texts stay as they are."""
    from tabulate import tabulate

    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def shell_command(*words: object) -> str:
    """The words as one line that a POSIX shell reads as them. A path that begins with a dash, which would be read as an
    option, is written from the current folder."""
    dashed = (f"./{word}" if isinstance(word, PathLike) and fspath(word).startswith("-") else word for word in words)
    return shlex.join(map(str, dashed))


def one_line(error: object, most: int | None = None) -> str:
    """The text of an error on one line, at most so many characters of it; those that a terminal would obey are written
    as escapes. An error without a text of its own is named by its type, and one whose text is a bare key also."""
    return printable(" ".join(_text_of(error).split())[:most])


def cause_of(error: BaseException, most: int | None = None) -> str:
    """The type of an error and its text, on one line."""
    kind, text = type(error).__name__, one_line(error, most)
    return text if text.startswith(kind) else f"{kind}: {text}"


def system_reason(error: OSError) -> str:
    """Why the operating system refused: its own words, or the error's text where a library raised it without them."""
    return error.strerror or one_line(error)


def _text_of(error: object) -> str:
    try:
        text = str(error)
    except Exception:  # a text that a class of the user's makes
        text = ""
    if not isinstance(error, BaseException):
        return text
    kind = type(error).__name__
    return f"{kind}: {text}" if isinstance(error, KeyError) else text if text.strip() else kind
