"""The ways to find losses. To add one: a file with `measure(station, job)`, a line here. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from planner.errors import UserError

if TYPE_CHECKING:
    from planner.methods.base import Found, Job
    from planner.station import Station


@dataclass(frozen=True)
class Method:
    """One way. module: what does it, imported when asked for; says: in a few words."""

    name: str
    module: str
    says: str

    def measure(self, station: Station, job: Job) -> Iterator[Found]:
        """What is found for each pair of the job, in its order, as soon as it is known."""
        found: Iterator[Found] = import_module(self.module).measure(station, job)
        return found


METHODS = {
    method.name: method
    for method in (
        Method("probes", "planner.methods.probes", "estimates all from a few backward passes, checks some"),
        Method("exhaustive", "planner.methods.exhaustive", "runs the model once for each (layer, scheme)"),
    )
}


def method_named(name: str) -> Method:
    """Raises UserError naming those that there are."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r} of measuring; choose {' or '.join(METHODS)}")
    return METHODS[name]
