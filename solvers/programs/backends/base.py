"""What every backend reports."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMAL, INFEASIBLE, STOPPED, FAILED = "optimal", "infeasible", "stopped", "failed"


@dataclass(frozen=True)
class ProgramResult:
    """How a backend ended, from the program itself, never from PuLP's status, which calls a timed-out answer optimal.

    state: OPTIMAL (within the gap asked for), INFEASIBLE, STOPPED (by a limit) or FAILED; bound: no answer is below it,
    in the program's units; has_values: the variables hold an answer; why: one phrase.
    """

    state: str
    bound: float
    has_values: bool
    why: str
