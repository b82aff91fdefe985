"""The table of solver backends that PuLP can call, the preferred one first.

To add a backend: a file with `missing` and `run`, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pulp

    from bitplan.solvers.effort import Deadline
    from bitplan.solvers.programs.backends.base import ProgramResult


class BackendError(ValueError):
    """The backend does not exist or is not installed here."""


@dataclass(frozen=True)
class Backend:
    """One backend.

    Attributes:
        name: the value of `--backend`.
        module: the module that drives it, imported on use.
        about: what it is good for.
    """

    name: str
    module: str
    about: str

    def missing(self) -> str | None:
        """Return why it cannot run here and what to install, or None."""
        reason: str | None = import_module(self.module).missing()
        return reason

    def run(self, program: pulp.LpProblem, deadline: Deadline, gap: float) -> ProgramResult:
        """Solve the program in place. deadline: when to end; gap: relative to the program's objective."""
        result: ProgramResult = import_module(self.module).run(program, deadline, gap)
        return result


BACKENDS = (
    Backend("highs", "bitplan.solvers.programs.backends.highs", "HiGHS in this process; best on several budgets"),
    Backend("cbc", "bitplan.solvers.programs.backends.cbc", "CBC as a separate process; good on small cores"),
)


def backend_named(name: str | None = None) -> Backend:
    """Return the backend of that name, or the first one that can run here. Raises BackendError with advice."""
    if name is not None and name not in (known := [backend.name for backend in BACKENDS]):
        raise BackendError(f"no solver backend is named {name!r}; choose from {', '.join(known)}")
    reasons = []
    for backend in BACKENDS:
        if name in (None, backend.name):
            reason = backend.missing()
            if reason is None:
                return backend
            reasons.append(f"{backend.name}: {reason}")
    raise BackendError(f"no solver backend can run ({'; '.join(reasons)})")
