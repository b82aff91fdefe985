"""The programs that PuLP can hand a model to, best first. To add one: a file with `missing` and `run`, a line here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pulp

    from bitplan.solvers.programs.backends.base import ProgramResult


class BackendError(ValueError):
    """A backend that does not exist, or is not installed here."""


@dataclass(frozen=True)
class Backend:
    """One program: its name, the module that drives it, what it is good for."""

    name: str
    module: str
    about: str

    def missing(self) -> str | None:
        """Why it cannot run here and what to install, or None."""
        answer: str | None = import_module(self.module).missing()
        return answer

    def run(self, program: pulp.LpProblem, time_limit: float, gap: float) -> ProgramResult:
        """Solve in place, see `base.ProgramResult`. time_limit in seconds; gap relative to the program's objective."""
        ended: ProgramResult = import_module(self.module).run(program, time_limit, gap)
        return ended


BACKENDS = (
    Backend("highs", "bitplan.solvers.programs.backends.highs", "HiGHS in this process; best on several budgets"),
    Backend("cbc", "bitplan.solvers.programs.backends.cbc", "CBC as a process of its own; good on small cores"),
)


def backend_named(name: str | None = None) -> Backend:
    """The backend of that name, or the first that runs here. Raises BackendError with what to do."""
    if name is not None and name not in (known := [backend.name for backend in BACKENDS]):
        raise BackendError(f"no solver backend is named {name!r}; choose from {', '.join(known)}")
    reasons = []
    for backend in BACKENDS:
        if name in (None, backend.name):
            reason = backend.missing()
            if reason is None:
                return backend
            reasons.append(f"{backend.name}: {reason}")
    raise BackendError(f"no solver backend to run ({'; '.join(reasons)})")
