"""What the code of a user or of a pipeline raises becomes one error that names what was called. Imports no torch."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bitplan.planner.errors import CallError, ShortageError, is_own
from bitplan.planner.texts import cause_of
from bitplan.sensitivity.shortage import asked_for, is_shortage

_MOST = 300  # characters of a cause


@contextmanager
def calling(what: str, advice: str = "call it alone to see why") -> Iterator[None]:
    """Turns what the code in the `with` raises into a CallError that starts with `what`, and has the original as its
    cause; `sys.exit` in that code also. Too little memory becomes a ShortageError.

    BitPlan's own errors, and interrupts, pass through.
    """
    try:
        yield
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if is_own(error) or isinstance(error, KeyboardInterrupt):
            raise
        if is_shortage(error):
            raise ShortageError(what.rstrip(","), asked_for(error)) from error
        raise CallError(f"{what} fails with {cause_of(error, _MOST)}; {advice}") from error


def shown(conditions: Sequence[Any]) -> str:
    """Names conditions in an error by the first of them."""
    if not len(conditions):
        return "no conditions"
    first = reprlib.repr(conditions[0])
    return first if len(conditions) == 1 else f"{len(conditions)} conditions, the first {first}"
