"""Suggestions for names that do not exist. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns the end of a sentence, `; did you mean 'x'?`, or an empty text where no name is near."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
