"""Objects of the user's own, named as `package.module:name` like the entry points of a Python project.

Importing a module runs its code. So a name carries where it comes from, and only a name that the user typed in this
call is imported: every verb marks its arguments by `typed`, and a name in a file is read by `read_name`. A text of
unknown origin is refused, so that a new verb cannot forget it.

Process-wide effect: the user's modules lie in the current folder, which Python's import system finds through `sys.path`
alone; the folder is there while a reference is loaded or what it names is called.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.texts import cause_of

TRUST = "--trust"  # the option, `trust=True` in Python
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_reference(text: str) -> bool:
    """Whether the text has the form `package.module:name`."""
    return _NAME.fullmatch(text) is not None


class Name(str):
    """The name of a pipeline, a metric or a model, with its origin.

    Attributes:
        file: the file that holds it; empty where the user typed it in this call, or trusts that file.
    """

    file: str

    def __new__(cls, text: str, file: str = "") -> Name:
        name = super().__new__(cls, text)
        name.file = file
        return name


def typed(value: Any) -> Any:
    """Marks a text, or the texts of a list, as typed by the user; other values are returned unchanged."""
    if isinstance(value, str):
        return value if isinstance(value, Name) else Name(value)
    several = isinstance(value, Collection) and not isinstance(value, Mapping)
    return tuple(map(typed, value)) if several else value


def read_name(text: str, file: object, trust: bool = False) -> Name:
    """Returns a name that stands in `file`. trust: whether the user lets it be imported."""
    return Name(text, "" if trust else str(file))


def read_names(texts: Iterable[str], file: object, trust: bool = False) -> tuple[Name, ...]:
    """Returns several names that stand in `file`."""
    return tuple(read_name(text, file, trust) for text in texts)


def is_typed(name: object) -> bool:
    """Whether the user typed the name in this call, or trusts the file that it stands in."""
    return isinstance(name, Name) and not name.file


def check_typed(*names: object) -> None:
    """Raises UserError where one of the names would run code and was not typed by the user."""
    for name in names:
        if isinstance(name, str) and is_reference(name) and not is_typed(name):
            file = getattr(name, "file", "") or "a file"
            raise UserError(f"{file} names {name}, and loading that runs the code of the module "
                            f"{name.partition(':')[0]}; if you trust the file, give {TRUST}, or name what to load "
                            "yourself")  # fmt: skip


@contextmanager
def importable(folder: str) -> Iterator[None]:
    """Within the `with`, modules of `folder` can be imported, those of the same name elsewhere first."""
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


@dataclass(frozen=True)
class UserFunction:
    """A function of a module in the user's folder, which may import others there whenever it is called.

    Attributes:
        function: the user's function.
        folder: where its modules are.
    """

    function: Callable[..., Any]
    folder: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with importable(self.folder):
            return self.function(*args, **kwargs)


def user_function(function: Callable[..., Any]) -> UserFunction:
    """Wraps the function for modules in the current folder."""
    return function if isinstance(function, UserFunction) else UserFunction(function, str(Path.cwd()))


def load_reference(text: str) -> Any:
    """Loads the object `package.module:name`; the module may lie in the current folder.

    Importing runs the module's code. Raises UserError if that fails, and where the user did not type the text.
    """
    if not is_reference(text):
        raise UserError(f"{text!r} is not a reference; write package.module:name")
    check_typed(text)
    module, _, names = text.partition(":")
    try:
        with importable(str(Path.cwd())):
            target: Any = importlib.import_module(module)
        for name in names.split("."):
            target = getattr(target, name)
    except (Exception, SystemExit) as error:  # an exception of the user's module is bad input
        reason = cause_of(error, 200)
        raise UserError(f"cannot load {text}: {reason}; check the module and the name") from error
    return target
