"""Objects of the user's own, named as `package.module:name` like the entry points of a Python project."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.texts import one_line

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_reference(text: str) -> bool:
    """Whether the text has the form `package.module:name`."""
    return _NAME.fullmatch(text) is not None


def load_reference(text: str) -> Any:
    """What `package.module:name` names; modules of the current folder are found, too.

    Runs the module's code, as importing it does. Raises UserError with the reason where it cannot be had.
    """
    if not is_reference(text):
        raise UserError(f"{text!r} names no object; write package.module:name")
    module, _, names = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except Exception as error:  # whatever the user's module throws is bad input to us
        reason = one_line(error, 200)
        raise UserError(
            f"cannot load {text}: {type(error).__name__}: {reason}; check the module and the name"
        ) from error
    return found
