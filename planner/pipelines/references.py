"""Objects of the user's own, named as `package.module:name` like the entry points of a Python project.

Process-wide effect: the user's modules lie in the current folder, which Python's import system finds through `sys.path`
alone; the folder is there while a reference is loaded or what it names is called.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.texts import one_line

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_reference(text: str) -> bool:
    """Whether the text has the form `package.module:name`."""
    return _NAME.fullmatch(text) is not None


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

    Importing runs the module's code. Raises UserError if that fails.
    """
    if not is_reference(text):
        raise UserError(f"{text!r} is not a reference; write package.module:name")
    module, _, names = text.partition(":")
    try:
        with importable(str(Path.cwd())):
            target: Any = importlib.import_module(module)
        for name in names.split("."):
            target = getattr(target, name)
    except Exception as error:  # an exception of the user's module is bad input
        reason = one_line(error, 200)
        raise UserError(
            f"cannot load {text}: {type(error).__name__}: {reason}; check the module and the name"
        ) from error
    return target
