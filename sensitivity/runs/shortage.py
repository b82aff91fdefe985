"""Tells errors of too little memory from others. Imports no torch."""

from __future__ import annotations

import re

_TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")  # of torch's RuntimeErrors
_ASKED = re.compile(r"allocate (\d[\d.]* ?\w+)", re.IGNORECASE)


def is_shortage(error: BaseException) -> bool:
    """Whether the error says that memory did not suffice, of the computer or of an accelerator."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    return type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in _TEXTS)


def asked_for(error: BaseException) -> str:
    """How much memory was asked for last, with its unit, such as `2.00 GiB`; empty if the error does not tell."""
    found = _ASKED.search(str(error))
    return found.group(1) if found else ""
