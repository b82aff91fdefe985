"""How long a profile takes and how much it needs, from a trial: the run that traced the pipeline."""

from __future__ import annotations

import resource
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from bitplan.planner.costs.candidates import Candidate
from bitplan.planner.costs.table import timings_of
from bitplan.planner.measurement.methods.probes import DENOISED_SHARE, MEMORY
from bitplan.planner.measurement.rounds import ROUND
from bitplan.planner.measurement.worker import Settings
from bitplan.planner.pipelines.metrics import MetricSet
from bitplan.planner.pipelines.traced import Traced
from bitplan.planner.profiles.profile import Pair
from bitplan.planner.progress import current, expected_of
from bitplan.planner.units import show_bytes
from bitplan.sensitivity.metrics import Metric

# bytes of the file: empty, a loss, and each number of its responses, as measured on `scenes`
_EMPTY, _ROW, _NUMBER = 1 << 16, 225, 4


@dataclass(frozen=True)
class Estimate:
    """What a profile will take; all of it, whatever an earlier run has done.

    Attributes:
        layers: the number of layers to plan.
        pairs: the number of (layer, scheme) to measure.
        prompts: the number of conditions.
        runs: full runs of the pipeline for one condition.
        passes: backward passes through a run for one condition.
        seconds: of the measurement, without loading.
        memory: bytes of the process at its peak.
        disk: bytes of the profile.
    """

    layers: int
    pairs: int
    prompts: int
    runs: int
    passes: int
    seconds: float
    memory: int
    disk: int

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"kind": "estimate", **asdict(self)}

    def __str__(self) -> str:
        work = f"{self.layers} layers, {self.pairs:,} (layer, scheme), {self.prompts} prompts"
        passes = f"{self.runs:,} runs and {self.passes:,} gradient passes"
        needs = f"{show_bytes(self.memory)} of memory and {show_bytes(self.disk)} on disk"
        return f"about {_time(self.seconds)} on this machine, as busy as it is: {work}, {passes}; about {needs}"


def estimate_of(
    traced: Traced, settings: Settings, metric_set: MetricSet, offered: Sequence[Candidate],
    work: tuple[Collection[Pair], str, int],
) -> Estimate:  # fmt: skip
    """The estimate of a measurement that begins.

    Args:
        traced: the subject after its trial.
        settings: of the profile.
        metric_set: the metrics that are measured.
        offered: the candidates that are timed.
        work: the (layer, scheme) to measure, the method, and the number of checks.
    """
    (pairs, method, checks), prompts = work, len(settings.prompts)
    probing = method == "probes"
    passes = sum(probes_of(settings.probes, metric) for metric in metric_set.metrics if metric.probe) * probing
    measured = checks if probing else len(set(pairs))
    seconds = sum(expected_seconds(prompts, prompts * probing, pairs, {
        "checks" if probing else "losses": measured, "costs": timings_of(offered, traced.graph),
    }).values())  # fmt: skip
    samples = passes * prompts * (2 if probing else 0)
    disk = (
        _EMPTY + len(set(pairs)) * len(metric_set.metrics) * _ROW * (1 + probing) + len(set(pairs)) * samples * _NUMBER
    )
    return Estimate(
        len(traced.graph.layers), len(set(pairs)), prompts, (1 + measured) * prompts, passes * prompts, seconds,
        _held() + _backward(traced, passes * min(ROUND, prompts)), disk,
    )  # fmt: skip


def probes_of(probes: int, metric: Metric) -> int:
    """The number of probes of a metric."""
    if metric.reads == "denoised":
        return -(-probes // DENOISED_SHARE)
    return 1 if metric.signed else probes


def expected_seconds(prompts: int, probing: int, pairs: Collection[Pair], todo: dict[str, int]) -> dict[str, float]:
    """Phase -> expected seconds, by the time of the trial. The arguments are those of `expected_of`."""
    # calibration runs prompts in batches, so its time per prompt is closer to that of a measurement
    spent = current().spent
    run = min(spent.get("tracing", 0.0), spent.get("calibration", float("inf")) / prompts)
    schemes = len(pairs) / max(len({layer for layer, _ in pairs}), 1)
    return expected_of(run, prompts, probing, schemes, todo)


def _backward(traced: Traced, copies: int) -> int:
    """Bytes of the layers' outputs that a call with so many copies of one sample holds for its backward pass, and of
    their gradients."""
    outputs = sum(prod(call.output) for layer in traced.graph.layers for call in layer.calls)
    return min(MEMORY, 2 * outputs * 4 * copies)


def _held() -> int:
    """The largest number of bytes that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
