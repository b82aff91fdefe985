"""Measurements of losses and the table that holds them. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bitplan.sensitivity.names import nearest

ESTIMATES = ("probes", "corrected")  # sources of measurements that can be computed again from responses
FAMILIES = ("quality", "alignment")
OWN = "own"  # the family of the user's metrics: each is a column, and belongs to no default objective


SOURCES = {
    "exhaustive": "measured with this one change in the model",
    "probes": "estimated from gradients and the layer's own change",
    "corrected": "estimated by probes, and corrected by exhaustive measurements of others",
    "imported": "read from another tool's files",
}


class MeasurementError(ValueError):
    """A loss that cannot be measured, is not a number, or is missing."""


@dataclass(frozen=True)
class Measurement:
    """The loss of one (layer, scheme) by one metric, all other layers in full precision.

    Attributes:
        layer: its address.
        scheme: the text of the scheme.
        metric: the name of the metric.
        mean: the mean over samples; that of a signed metric may be below 0 (`LossTable.loss` clips it).
        stderr: standard error of the mean over prompts and timesteps; inf if there are too few samples.
        count: the number of samples.
        finite: False if the variant's output held NaN or infinity, which was replaced by 0.
        source: the origin of the number, a key of `SOURCES`.

    Raises:
        MeasurementError: a number is out of its range.
    """

    layer: str
    scheme: str
    metric: str
    mean: float
    stderr: float
    count: int
    finite: bool = True
    source: str = "exhaustive"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and self.stderr >= 0 and self.count >= 1):
            numbers = f"mean {self.mean}, standard error {self.stderr}, count {self.count}"
            raise MeasurementError(f"{describe(self.layer, self.scheme, self.metric)}: {numbers}; measure it again")
        if self.source not in SOURCES:
            raise MeasurementError(f"a measurement comes from {', '.join(SOURCES)}, not from {self.source!r}")


def describe(layer: str, scheme: str, metric: str) -> str:
    """The name of one measurement in error messages."""
    return f"{metric} of {layer} at {scheme}"


def summarise(
    samples: Sequence[float],
    strata: Sequence[Hashable] = (),
    clusters: Sequence[Hashable] = (),
    what: str = "measurement",
) -> tuple[float, float, int]:
    """The mean of samples, its standard error, and their number.

    Errors are summed within a cluster before they are squared (cluster-robust variance, Liang and Zeger 1986, identity
    link). For independent samples of one stratum this is deviation / sqrt(count); it is inf for fewer than 2 samples a
    stratum.

    Args:
        samples: the losses.
        strata: the timestep of each sample, whose differences are not noise and are removed; empty for one stratum.
        clusters: the prompt of each sample, whose errors are correlated; empty if all are independent.
        what: the name of the measurement in errors.

    Raises:
        MeasurementError: there are no samples, or some are not finite.
    """
    count = len(samples)
    bad = sum(not math.isfinite(x) for x in samples)
    if bad or not count:
        problem = f"{bad} of {count} samples are not finite; leave out that scheme, or the metric"
        raise MeasurementError(f"{what}: {problem if count else 'there are no samples; measure on some prompts'}")
    strata, clusters = strata or [0] * count, clusters or range(count)
    if len(strata) != count or len(clusters) != count:
        raise MeasurementError(f"{what}: {count} samples have {len(strata)} strata and {len(clusters)} clusters")
    return math.fsum(samples) / count, _standard_error(samples, strata, clusters), count


def _standard_error(samples: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]) -> float:
    count = len(samples)
    members: dict[Hashable, list[float]] = {}
    for sample, stratum in zip(samples, strata, strict=True):
        members.setdefault(stratum, []).append(sample)
    centre = {stratum: math.fsum(values) / len(values) for stratum, values in members.items()}
    sums: dict[Hashable, list[float]] = {}
    for sample, stratum, cluster in zip(samples, strata, clusters, strict=True):
        sums.setdefault(cluster, []).append(sample - centre[stratum])
    if len(sums) < 2 or min(map(len, members.values())) < 2:
        return math.inf
    # the two small-sample factors agree on a full grid of prompts and timesteps; otherwise the larger is safer
    factor = max(count / (count - len(members)), len(sums) / (len(sums) - 1))
    return math.sqrt(factor * math.fsum(math.fsum(errors) ** 2 for errors in sums.values())) / count


@dataclass(frozen=True)
class LossTable:
    """Measurements by (layer, scheme, metric); build one with `LossTable.of`."""

    measurements: Mapping[tuple[str, str, str], Measurement]

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> LossTable:
        """Build a table. Raises MeasurementError if two measurements of one (layer, scheme, metric) differ."""
        table: dict[tuple[str, str, str], Measurement] = {}
        for new in measurements:
            old = table.setdefault((new.layer, new.scheme, new.metric), new)
            if old != new:
                name = describe(new.layer, new.scheme, new.metric)
                raise MeasurementError(f"{name} was measured twice, as {old.mean:.6g} and {new.mean:.6g}; keep one")
        return cls(table)

    def measurement(self, layer: str, scheme: str, metric: str) -> Measurement:
        """One measurement. Raises MeasurementError, which names the nearest one, if it is missing."""
        measurement = self.measurements.get((layer, scheme, metric))
        if measurement is None:
            wanted = describe(layer, scheme, metric)
            hint = nearest(wanted, [describe(*key) for key in self.measurements])
            raise MeasurementError(
                f"{wanted} is not among the {len(self.measurements)} measurements; run the profile to its end{hint}"
            )
        return measurement

    def loss(self, layer: str, scheme: str, metric: str) -> float:
        """The mean, clipped at 0: a negative loss is noise and must not be exploited."""
        return max(self.measurement(layer, scheme, metric).mean, 0.0)

    def missing(
        self, layers: Iterable[str], schemes: Iterable[str], metrics: Iterable[str]
    ) -> tuple[tuple[str, str, str], ...]:
        """The (layer, scheme, metric) of the full grid that are missing, in grid order."""
        schemes, metrics = tuple(schemes), tuple(metrics)
        grid = ((layer, scheme, metric) for layer in layers for scheme in schemes for metric in metrics)
        return tuple(key for key in grid if key not in self.measurements)
