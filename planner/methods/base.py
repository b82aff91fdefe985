"""What every method is asked for and hands back. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sensitivity.table import Measurement

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[str, str]  # layer address, scheme text


@dataclass(frozen=True)
class Job:
    """The part of a profile that one worker measures at a stretch: all (layer, scheme) of a chunk of layers, or those
    that are still to do. method: its name in `METHODS`."""

    method: str
    pairs: tuple[Pair, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(layer for layer, _ in self.pairs))


@dataclass(frozen=True)
class Found:
    """What was found for one (layer, scheme): its measurements, one a metric, and by metric what else the method
    keeps, a small array each."""

    measurements: tuple[Measurement, ...]
    responses: Mapping[str, np.ndarray] = field(default_factory=dict)


def jobs_of(method: str, pairs: Iterable[Pair], layers: int) -> tuple[Job, ...]:
    """The pairs as jobs of so many layers each, in the order in which layers first come."""
    by_layer: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_layer.setdefault(pair[0], []).append(pair)
    rows = list(by_layer.values())
    chunks = (rows[start : start + layers] for start in range(0, len(rows), layers))
    return tuple(Job(method, tuple(pair for row in chunk for pair in row)) for chunk in chunks)


def share_of(jobs: tuple[Job, ...], part: tuple[int, int]) -> tuple[Job, ...]:
    """The k-th of n shares, part = (k, n) with 1 <= k <= n: every n-th job. Each job is in exactly one share."""
    number, shares = part
    return jobs[number - 1 :: shares]


def pending_of(jobs: Iterable[Job], done: Collection[Pair]) -> tuple[Job, ...]:
    """The jobs without the pairs that are done, and without those of which nothing is left."""
    left = (replace(job, pairs=tuple(pair for pair in job.pairs if pair not in done)) for job in jobs)
    return tuple(job for job in left if job.pairs)
