"""Measurements of losses, and the table that looks them up. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bitplan.sensitivity.names import nearest

ESTIMATES = ("probes", "corrected")  # sources of measurements that responses can give again
FAMILIES = ("quality", "alignment")
OWN = "own"  # the family of metrics of the user's own: a column each, in no objective unless named


SOURCES = {
    "exhaustive": "measured with this one change in the model",
    "probes": "estimated from gradients and the layer's own change",
    "corrected": "estimated by probes, and moved by what exhaustive measurements of others showed",
    "imported": "taken from another tool's files",
}


class MeasurementError(ValueError):
    """A loss that could not be measured, is no number, or is not there."""


@dataclass(frozen=True)
class Measurement:
    """The loss of one (layer, scheme) by one metric, all other layers in full precision.

    mean: as measured; a signed metric may give a little less than 0 (`LossTable.loss` clips it there).
    stderr: standard error of the mean over prompts and timesteps; inf where too few samples leave it unknown.
    finite: False where the variant's output held NaN or infinity, which was taken as 0.
    source: where the number came from, a key of `SOURCES`.
    Raises MeasurementError when a number is out of its range.
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
    """How errors name one measurement."""
    return f"{metric} of {layer} at {scheme}"


def summarise(
    samples: Sequence[float],
    strata: Sequence[Hashable] = (),
    clusters: Sequence[Hashable] = (),
    what: str = "measurement",
) -> tuple[float, float, int]:
    """Mean, its standard error, and count of `samples`.

    strata: the fixed condition of each sample (its timestep), whose differences are no noise and are taken out.
    clusters: what each sample shares its luck with (its prompt): noise is summed within a cluster before squaring
    (cluster-robust variance, Liang and Zeger 1986, eq. for an identity link). Empty: one stratum, all independent.
    For plain samples this is the textbook deviation / sqrt(count); it is inf for fewer than 2 samples a stratum.
    Raises MeasurementError naming `what` when there are no samples or some are not finite.
    """
    count = len(samples)
    bad = sum(not math.isfinite(x) for x in samples)
    if bad or not count:
        problem = f"{bad} of {count} samples are not finite" if count else "there are no samples"
        raise MeasurementError(f"{what}: {problem}; check the full-precision outputs and the metric's inputs")
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
    # the two small-sample factors agree on a full prompt-by-timestep grid; elsewhere the larger is the safer
    factor = max(count / (count - len(members)), len(sums) / (len(sums) - 1))
    return math.sqrt(factor * math.fsum(math.fsum(rest) ** 2 for rest in sums.values())) / count


@dataclass(frozen=True)
class LossTable:
    """Measurements by (layer, scheme, metric); build one with `LossTable.of`."""

    measurements: Mapping[tuple[str, str, str], Measurement]

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> LossTable:
        """Raises MeasurementError when two measurements of one (layer, scheme, metric) differ."""
        table: dict[tuple[str, str, str], Measurement] = {}
        for new in measurements:
            old = table.setdefault((new.layer, new.scheme, new.metric), new)
            if old != new:
                name = describe(new.layer, new.scheme, new.metric)
                raise MeasurementError(f"{name} was measured twice, as {old.mean:.6g} and {new.mean:.6g}; keep one")
        return cls(table)

    def measurement(self, layer: str, scheme: str, metric: str) -> Measurement:
        """Raises MeasurementError, naming the nearest that is there, when this one was not measured."""
        found = self.measurements.get((layer, scheme, metric))
        if found is None:
            wanted = describe(layer, scheme, metric)
            hint = nearest(wanted, [describe(*key) for key in self.measurements]) or "; the table is empty"
            raise MeasurementError(
                f"{wanted} is not among the {len(self.measurements)} measurements; run the profile to its end{hint}"
            )
        return found

    def loss(self, layer: str, scheme: str, metric: str) -> float:
        """The mean, clipped at 0: noise that happens to help one layer is nothing to bank on."""
        return max(self.measurement(layer, scheme, metric).mean, 0.0)

    def missing(
        self, layers: Iterable[str], schemes: Iterable[str], metrics: Iterable[str]
    ) -> tuple[tuple[str, str, str], ...]:
        """The (layer, scheme, metric) of the full grid that were not measured, in grid order."""
        schemes, metrics = tuple(schemes), tuple(metrics)
        grid = ((layer, scheme, metric) for layer in layers for scheme in schemes for metric in metrics)
        return tuple(key for key in grid if key not in self.measurements)
