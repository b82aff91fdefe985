"""A job is a part of a profile that one worker measures; a result is what it measured. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from bitplan.planner.profiles.profile import Pair
from bitplan.sensitivity.responses import Reading, Sums
from bitplan.sensitivity.table import Measurement


@dataclass(frozen=True)
class Job:
    """The part of a profile that one worker measures without interruption.

    Attributes:
        method: a name in `METHODS`.
        pairs: the (layer, scheme) to measure.
        prompts: index of the first prompt and of the one after the last; all by default.
    """

    method: str
    pairs: tuple[Pair, ...]
    prompts: tuple[int, int | None] = (0, None)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the pairs, each once, in order."""
        return tuple(dict.fromkeys(layer for layer, _ in self.pairs))

    @property
    def size(self) -> int:
        """The number of pairs, times the number of prompts if the job names a range of them."""
        first, last = self.prompts
        return len(self.pairs) * (1 if last is None else last - first)


@dataclass(frozen=True, eq=False)
class JobResult:
    """The result for one (layer, scheme): measurements or responses; neither if the method cannot measure the pair.

    Attributes:
        pair: the (layer, scheme).
        measurements: one per metric.
        prompts: the range of prompts of the responses, as in `Job`.
        responses: metric -> (K, S) responses.
        readings: metric -> how to read its responses.
        idle: whether the layer ran on none of these prompts, so that the responses are 0.
    """

    pair: Pair
    measurements: tuple[Measurement, ...] = ()
    prompts: tuple[int, int | None] = (0, None)
    responses: Mapping[str, Sums] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    idle: bool = False


def jobs_of(method: str, pairs: Iterable[Pair], layers: int) -> tuple[Job, ...]:
    """Divide the pairs into jobs of `layers` layers each, in the order of the first pair of each layer."""
    by_layer: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_layer.setdefault(pair[0], []).append(pair)
    rows = list(by_layer.values())
    chunks = (rows[start : start + layers] for start in range(0, len(rows), layers))
    return tuple(Job(method, tuple(pair for row in chunk for pair in row)) for chunk in chunks)


def share_of(pairs: Iterable[Pair], part: tuple[int, int]) -> tuple[Pair, ...]:
    """The pairs of share k of n, part = (k, n) with 1 <= k <= n: every n-th layer. Each layer is in one share."""
    pairs, (number, shares) = tuple(pairs), part
    layers = set(tuple(dict.fromkeys(layer for layer, _ in pairs))[number - 1 :: shares])
    return tuple(pair for pair in pairs if pair[0] in layers)


def pending_of(jobs: Iterable[Job], measured: Collection[Pair]) -> tuple[Job, ...]:
    """The jobs without the measured pairs; jobs without pairs are dropped."""
    pending = (replace(job, pairs=tuple(pair for pair in job.pairs if pair not in measured)) for job in jobs)
    return tuple(job for job in pending if job.pairs)
