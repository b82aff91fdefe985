"""Suggestions for names that do not exist. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str], most: int = 1) -> str:
    """Returns the end of a sentence, `; did you mean 'x'?`, or an empty text where `names` is empty.

    most: the number of names that are suggested.
    """
    near = [repr(each) for each in difflib.get_close_matches(name, list(names), most, 0)]
    return f"; did you mean {' or '.join(filter(None, (', '.join(near[:-1]), *near[-1:])))}?" if near else ""
