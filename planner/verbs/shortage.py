"""Too little memory becomes one line: what asked for it, and with which words the verb takes less. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from bitplan.planner.errors import ShortageError
from bitplan.planner.interrupts import current
from bitplan.sensitivity.shortage import asked_for, is_shortage

# word of a verb -> how it takes less memory on the command line
LESS = {"count": "a smaller --count", "call": "--call height=256 --call width=256", "batch": "a smaller --batch",
        "probes": "fewer --probes", "offload_folder": "--offload-folder FOLDER"}  # fmt: skip


@contextmanager
def telling_shortage(verb: str, words: Collection[str]) -> Iterator[None]:
    """Turns errors of too little memory in the `with` into a ShortageError with advice. words: those of the verb."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, ShortageError)
        if not (known or is_shortage(error)) or (known and error.advice):
            raise
        what, asked = (error.what, error.asked) if isinstance(error, ShortageError) else (verb, asked_for(error))
        kept = current()
        ways = " or ".join(way for word, way in LESS.items() if word in words)
        advice = "close other programs" + (f", or give {ways}" if ways else "")
        told = ShortageError(what, asked, f"{advice}; {kept}" if kept.sentence or kept.files else advice)
        told.__notes__ = list(getattr(error, "__notes__", ()))  # the phases
        raise told from error
