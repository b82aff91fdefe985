"""Suggestions for names that do not exist. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 12  # names that are listed where none is near


def nearest(name: str, names: Iterable[str], most: int = 1) -> str:
    """Returns the end of a sentence, `; did you mean 'x'?`, or an empty text where no name is near.

    most: the number of names that are suggested.
    """
    near = [repr(each) for each in difflib.get_close_matches(name, list(names), most)]
    return f"; did you mean {' or '.join(filter(None, (', '.join(near[:-1]), *near[-1:])))}?" if near else ""


def nearest_or_all(name: str, names: Iterable[str], most: int = 1) -> str:
    """Returns the same, but where no name is near, the names that there are, the first of many; empty for none."""
    known = list(names)
    if (near := nearest(name, known, most)) or not known:
        return near
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"; there are {', '.join(known[:_LISTED])}{more}"
