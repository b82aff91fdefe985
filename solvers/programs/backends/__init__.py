"""The table of solver backends that PuLP can call, the preferred one first.

To add a backend: a file with `missing`, `place` and `run`, and a line here. A backend that is installed but broken is
passed over, and the result tells why.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from bitplan.solvers.programs.backends.base import FAILED, OPTIMAL, ProgramResult, cause_of

if TYPE_CHECKING:
    from bitplan.solvers.effort import Deadline
    from bitplan.solvers.programs.modelling import pulp

TRIAL = 5.0  # seconds for a program of one row


class BackendError(ValueError):
    """The backend does not exist or cannot run here."""


@dataclass(frozen=True)
class Backend:
    """One backend.

    Attributes:
        name: the value of `--backend`.
        module: the module that drives it, imported on use.
        about: what it is good for.
        others: the backends that are tried where this one fails.
        note: why backends that come before it and are installed cannot run; empty if there are none.
    """

    name: str
    module: str
    about: str
    others: tuple[Backend, ...] = ()
    note: str = ""

    def missing(self) -> str | None:
        """Return why it cannot run here and what to install, or None once it has solved a program of one row."""
        reason: str | None = import_module(self.module).missing()
        return reason or self.fault()

    def fault(self) -> str | None:
        """Return why it cannot run here although it is installed, or None."""
        module = import_module(self.module)
        return None if module.missing() else _trial(module.run, module.place())

    def run(self, program: pulp.LpProblem, deadline: Deadline, gap: float) -> ProgramResult:
        """Solve the program in place, by one of the others if this one fails. Never raises an Exception.

        deadline: when to end; gap: relative to the program's objective.
        """
        result = _attempt(self, program, deadline, gap)
        for other in self.others:
            if result.state != FAILED or not deadline.left():
                break
            if not other.missing():
                again = _attempt(other, program, deadline, gap)
                result = replace(again, reason=f"{result.reason}; {again.reason}")
        return replace(result, reason=f"{self.note}; {result.reason}") if self.note else result


def _attempt(backend: Backend, program: pulp.LpProblem, deadline: Deadline, gap: float) -> ProgramResult:
    try:
        result: ProgramResult = import_module(backend.module).run(program, deadline, gap)
    except Exception as error:  # a broken installation may raise anything
        return ProgramResult(FAILED, -math.inf, False, f"{backend.name} failed with {cause_of(error)}")
    return result


@functools.cache
def _trial(run: Callable[[pulp.LpProblem, Deadline, float], ProgramResult], place: str) -> str | None:
    """Return why `run`, of the backend that lies at `place`, does not solve a program of one row, or None."""
    from bitplan.solvers.effort import Deadline
    from bitplan.solvers.programs.modelling import pulp

    program = pulp.LpProblem("trial", pulp.LpMinimize)
    unknown = program.add_variable("x", 0, 3, pulp.LpInteger)
    program += 2 * unknown >= 3
    program.setObjective(unknown * 1.0)
    deadline = Deadline.after(TRIAL)
    try:
        result = run(program, deadline, 0.0)
    except Exception as error:
        return f"{place} does not work: {cause_of(error)}; install it again"
    if result.state == OPTIMAL and unknown.varValue == 2:
        return None
    said = result.reason if result.state != OPTIMAL else f"its answer to 2x >= 3 is {unknown.varValue}"
    return f"{place} does not work: {said}; install it again"


BACKENDS = (
    Backend("highs", "bitplan.solvers.programs.backends.highs", "HiGHS in this process; best on several budgets"),
    Backend("cbc", "bitplan.solvers.programs.backends.cbc", "CBC as a separate process; good on small cores"),
)


def backend_named(name: str | None = None) -> Backend:
    """Return the backend of that name, or the first one that can run here, with the rest for where it fails.

    Raises BackendError with advice.
    """
    if name is not None and name not in (known := [backend.name for backend in BACKENDS]):
        raise BackendError(f"no solver backend is named {name!r}; choose from {', '.join(known)}")
    reasons: list[str] = []
    notes: list[str] = []
    for number, backend in enumerate(BACKENDS):
        if name in (None, backend.name):
            reason = backend.missing()
            if reason is None:
                others = BACKENDS[number + 1 :] if name is None else ()
                return replace(backend, others=others, note="; ".join(notes))
            reasons.append(f"{backend.name}: {reason}")
            notes += [f"{backend.name}: {reason}"] if backend.fault() else []
    raise BackendError(f"no solver backend can run ({'; '.join(reasons)})")
