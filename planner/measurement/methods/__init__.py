"""The ways to find losses. To add one: a file with `measure(station, job)`, a line here. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError  # noqa: F401
from bitplan.plans.dtypes import FLOAT32

if TYPE_CHECKING:
    from bitplan.planner.measurement.jobs import Job, JobResult
    from bitplan.planner.measurement.worker import Worker


DTYPES = (FLOAT32, "bfloat16")  # of pipelines; the gradients of float16 would leave its range


def check_dtype(name: str, runs: bool) -> None:
    """Raises UserError for a float type that pipelines are not measured in. runs: whether one changed layer is to be
    told by a run of the whole model: in 16 bits that shows the rounding of everything else, whatever was changed."""
    if name not in DTYPES:
        raise UserError(f"pipelines are measured in {' or '.join(DTYPES)}, not {name!r}; choose one of them")
    if runs and name != FLOAT32:
        raise UserError(
            f"a run in {name} shows the rounding of all layers, not what one scheme did; there, profile by probes with "
            f"neither --checks nor --time, or use --dtype {FLOAT32}"
        )


@dataclass(frozen=True)
class Method:
    """One way. module: what does it, imported when asked for; says: in a few words."""

    name: str
    module: str
    says: str

    def measure(self, station: Worker, job: Job) -> Iterator[JobResult]:
        """What is found for each pair of the job, in its order, as soon as it is known."""
        found: Iterator[JobResult] = import_module(self.module).measure(station, job)
        return found


METHODS = {
    method.name: method
    for method in (
        Method(
            "probes",
            "bitplan.planner.measurement.methods.probes",
            "estimates all from a few backward passes, checks some",
        ),
        Method(
            "exhaustive",
            "bitplan.planner.measurement.methods.exhaustive",
            "runs the model once for each (layer, scheme)",
        ),
    )
}


def method_named(name: str) -> Method:
    """Raises UserError naming those that there are."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r} of measuring; choose {' or '.join(METHODS)}")
    return METHODS[name]
