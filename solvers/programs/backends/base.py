"""The result that every backend reports."""

from __future__ import annotations

from dataclasses import dataclass

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
