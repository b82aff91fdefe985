"""How long to search, how close to the optimum, and with which backend."""

from __future__ import annotations

from dataclasses import dataclass

from bitplan.solvers.problem import ProblemError


@dataclass(frozen=True)
class Effort:
    """The limits of a search. Raises ProblemError for values out of range.

    Attributes:
        time_limit: seconds of wall time, > 0; a backend may run a little over.
        gap: the share of the objective, in [0, 1), that a better choice may still save when the search stops.
        backend: a name in `backends.BACKENDS`; None takes the first one installed.
    """

    time_limit: float = 60.0
    gap: float = 0.0
    backend: str | None = None

    def __post_init__(self) -> None:
        if not self.time_limit > 0 or not 0 <= self.gap < 1:
            raise ProblemError(
                f"the time limit is {self.time_limit:g} and the gap is {self.gap:g}; "
                "expected seconds > 0 and a share in [0, 1)"
            )


DEFAULT = Effort()
