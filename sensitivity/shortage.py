"""Tells errors of too little memory from others. Imports no torch."""

from __future__ import annotations

import re

_TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")  # of torch's RuntimeErrors
_ASKED = re.compile(r"allocate (\d[\d.]* ?\w+)", re.IGNORECASE)


def is_shortage(error: BaseException) -> bool:
    """Whether the error, or its cause, says that the memory of the computer or of an accelerator did not suffice."""
    own = isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in _TEXTS))
    )
    return own or (error.__cause__ is not None and is_shortage(error.__cause__))


def asked_for(error: BaseException) -> str:
    """How much memory was asked for last, with its unit, such as `2.00 GiB`; empty if the error does not tell."""
    found = _ASKED.search(str(error))
    if found is None:
        return asked_for(error.__cause__) if error.__cause__ else ""
    return found.group(1)
