"""How long to search, how close to the optimum, and with which backend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bitplan.solvers.problem import ProblemError


def never() -> bool:
    """Return False: nothing stops the search."""
    return False


@dataclass(frozen=True)
class Deadline:
    """When a search ends: at a time, or before it when it is told to stop.

    Attributes:
        time: on the clock of `time.monotonic`.
        stopped: whether it is told to stop; may be called in any thread.
    """

    time: float = math.inf
    stopped: Callable[[], bool] = never

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline at which a search that does not end in these seconds is told to stop."""
        time_ = time.monotonic() + seconds
        return cls(time_, lambda: time.monotonic() > time_)

    def left(self) -> float:
        """Return the seconds that are left; 0 where it is told to stop."""
        return 0.0 if self.stopped() else max(self.time - time.monotonic(), 0.0)

    def half(self) -> Deadline:
        """Return the deadline in half of the time that is left."""
        return Deadline((self.time + time.monotonic()) / 2, self.stopped)

    def reason(self) -> str:
        """Return why the search ended at this deadline, in one phrase."""
        return "it was told to stop" if self.stopped() else "the time limit was reached"


UNLIMITED = Deadline()


@dataclass(frozen=True)
class Effort:
    """The limits of a search. Raises ProblemError for values out of range.

    Attributes:
        time_limit: seconds of wall time, > 0; a backend may run a little over.
        gap: the share of the objective, in [0, 1), that a better choice may still save when the search stops.
        backend: a name in `backends.BACKENDS`; None takes the first one installed.
        stopped: whether to stop before the time limit, asked again and again in any thread.
    """

    time_limit: float = 60.0
    gap: float = 0.0
    backend: str | None = None
    stopped: Callable[[], bool] = field(default=never, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.time_limit > 0 or not 0 <= self.gap < 1:
            raise ProblemError(
                f"the time limit is {self.time_limit:g} and the gap is {self.gap:g}; "
                "expected seconds > 0 and a share in [0, 1)"
            )

    def deadline(self) -> Deadline:
        """Return when a search ends that begins now."""
        return Deadline(time.monotonic() + self.time_limit, self.stopped)

    def to_json(self) -> dict[str, Any]:
        """Return the limits for JSON."""
        return {"time_limit": self.time_limit, "gap": self.gap, "backend": self.backend}


DEFAULT = Effort()
