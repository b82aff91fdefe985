"""What a verb has kept where it is interrupted, and that a signal to end is treated as Ctrl-C is. Imports no torch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

INTERRUPTED = 128 + signal.SIGINT  # exit code, as a shell states it for Ctrl-C
NOTHING = "nothing was written"
_NAMED = 3  # files that are named; of more, only the last


class Terminated(KeyboardInterrupt):
    """The process was asked to end by another signal than Ctrl-C.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class Kept:
    """What the verb that runs has kept so far.

    Attributes:
        sentence: what the verb says itself; empty where the list of files says everything.
        files: the files that it has written.
        told: whether the user has been told.
    """

    sentence: str = ""
    files: list[Path] = field(default_factory=list)
    told: bool = False

    def __str__(self) -> str:
        if self.sentence or not self.files:
            return self.sentence or NOTHING
        names = list(dict.fromkeys(map(str, self.files)))
        return f"wrote {', '.join(names)}" if len(names) <= _NAMED else f"wrote {len(names)} files, up to {names[-1]}"


_CURRENT: ContextVar[Kept] = ContextVar("kept")


def current() -> Kept:
    """What the verb in this context has kept; a record that nobody reads where no verb runs."""
    return _CURRENT.get(None) or Kept()


def keeps(sentence: str) -> None:
    """State what is kept if the verb is interrupted from now on, and how to continue."""
    current().sentence = sentence


@contextmanager
def recorded(kept: Kept | None = None) -> Iterator[Kept]:
    """Record in `kept` what the verb in the `with` keeps. An interrupt that leaves it carries this as a note."""
    kept = kept or Kept()
    token = _CURRENT.set(kept)
    try:
        yield kept
    except KeyboardInterrupt as error:
        if str(kept) not in getattr(error, "__notes__", ()):
            error.add_note(str(kept))
        raise
    finally:
        _CURRENT.reset(token)


def told_of(error: BaseException) -> tuple[str, int]:
    """What to tell the user of an interrupt, without what was kept, and the exit code that a shell states for it."""
    found = next((each for each in (error, error.__cause__) if isinstance(each, Terminated)), None)
    return ("interrupted", INTERRUPTED) if found is None else (f"ended by {found}", 128 + found.number)
