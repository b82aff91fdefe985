"""The result that every backend reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitplan.solvers.effort import Deadline

POLL = 0.05  # seconds between two questions whether to stop
PATIENCE = 1.0  # seconds that a backend gets to end
OVERTIME = 10.0  # seconds after the time limit until a backend that does not end by itself is stopped
OPTIMAL, INFEASIBLE, STOPPED, FAILED = "optimal", "infeasible", "stopped", "failed"


@dataclass(frozen=True)
class ProgramResult:
    """How a backend ended, read from the backend itself: PuLP's status calls an answer at the time limit optimal.

    Attributes:
        state: OPTIMAL (within the requested gap), INFEASIBLE, STOPPED (by a limit) or FAILED.
        bound: the lower bound on the program's objective.
        has_values: whether the variables hold an answer.
        reason: one phrase.
    """

    state: str
    bound: float
    has_values: bool
    reason: str


def cause_of(error: BaseException) -> str:
    """Return the kind and the text of an error in one line of at most 200 characters."""
    text = " ".join(str(error).split())
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:200]


def overdue(deadline: Deadline) -> Callable[[], bool]:
    """Return the function that says whether a backend is to be stopped: it was told to, or it does not end."""
    return lambda: deadline.stopped() or time.monotonic() > deadline.time + OVERTIME


def attended(work: Callable[[], object], stopped: Callable[[], bool], stop: Callable[[], object]) -> bool:
    """Run the work in a thread of its own, and stop it when told to, or on Ctrl-C, which a call into C would delay.

    stop: makes the work end soon; called only while the work runs. Returns whether it has ended; raises what it raises.
    """
    ended, told = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if not told.is_set():
                work()
        except BaseException as error:
            failures.append(error)
        ended.set()

    try:
        threading.Thread(target=run, daemon=True).start()
        while not ended.wait(POLL) and not stopped():
            pass
    finally:
        if not ended.is_set():
            told.set()
            stop()
            ended.wait(PATIENCE)
    if failures:
        raise failures[0]
    return ended.is_set()
