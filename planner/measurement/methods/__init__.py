"""The methods of measuring losses. To add one: a file with `measure(worker, job)`, a line here.

Imports no torch by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError
from bitplan.plans.dtypes import FLOAT32

if TYPE_CHECKING:
    from bitplan.planner.measurement.jobs import Job, JobResult
    from bitplan.planner.measurement.worker import Worker


DTYPES = (FLOAT32, "bfloat16")  # float types of pipelines; gradients would overflow in float16


def check_dtype(name: str, runs: bool, instead: str = "") -> None:
    """Raises UserError for a float type that pipelines are not measured in.

    Args:
        name: the type.
        runs: whether losses are measured by full runs, which are too noisy in 16 bits.
        instead: what to give instead; empty for the option.
    """
    if name not in DTYPES:
        what = f"give {instead}" if instead else "choose one of them"
        raise UserError(f"pipelines are measured in {' or '.join(DTYPES)}, not {name!r}; {what}")
    if runs and name != FLOAT32:
        raise UserError(
            f"a run in {name} shows the rounding of all layers, not the effect of one scheme; profile by probes with "
            f"neither --checks nor --time, or {f'give {instead}' if instead else f'use --dtype {FLOAT32}'}"
        )


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: its name in options and files.
        module: the module with its `measure`, imported on first use.
        says: what it does, in a few words for tables.
    """

    name: str
    module: str
    says: str

    def measure(self, worker: Worker, job: Job) -> Iterator[JobResult]:
        """Measure a job and yield the result of each pair, in order, as soon as it is known."""
        results: Iterator[JobResult] = import_module(self.module).measure(worker, job)
        return results


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
    """The method of that name. Raises UserError if there is none."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r} of measuring; choose {' or '.join(METHODS)}")
    return METHODS[name]


def run_job(worker: Worker, job: Job) -> Iterator[JobResult]:
    """Measure a job by its own method."""
    return method_named(job.method).measure(worker, job)
