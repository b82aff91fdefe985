"""What every method is asked for and hands back. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from bitplan.planner.profiles.profile import Pair
from bitplan.sensitivity.responses import Reading, Sums
from bitplan.sensitivity.table import Measurement


@dataclass(frozen=True)
class Job:
    """The part of a profile that one worker measures at a stretch: all (layer, scheme) of a chunk of layers, or those
    that are still to do. method: its name in `METHODS`; prompts: the first one and the one after the last, all by
    default."""

    method: str
    pairs: tuple[Pair, ...]
    prompts: tuple[int, int | None] = (0, None)

    @property
    def layers(self) -> tuple[str, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(layer for layer, _ in self.pairs))

    @property
    def size(self) -> int:
        """How much it is: pairs, each as often as there are prompts where they are named."""
        first, last = self.prompts
        return len(self.pairs) * (1 if last is None else last - first)


@dataclass(frozen=True, eq=False)
class JobResult:
    """What was found for one (layer, scheme): its measurements, one a metric, or, by metric, what they are made of:
    responses (K, S) of the prompts from one to before another, and how to read them. Neither where the method cannot
    find it."""

    pair: Pair
    measurements: tuple[Measurement, ...] = ()
    prompts: tuple[int, int | None] = (0, None)
    responses: Mapping[str, Sums] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)


def jobs_of(method: str, pairs: Iterable[Pair], layers: int) -> tuple[Job, ...]:
    """The pairs as jobs of so many layers each, in the order in which layers first come."""
    by_layer: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_layer.setdefault(pair[0], []).append(pair)
    rows = list(by_layer.values())
    chunks = (rows[start : start + layers] for start in range(0, len(rows), layers))
    return tuple(Job(method, tuple(pair for row in chunk for pair in row)) for chunk in chunks)


def share_of(pairs: Iterable[Pair], part: tuple[int, int]) -> tuple[Pair, ...]:
    """The k-th of n shares, part = (k, n) with 1 <= k <= n: every n-th layer. Each layer is in exactly one share."""
    pairs, (number, shares) = tuple(pairs), part
    mine = set(tuple(dict.fromkeys(layer for layer, _ in pairs))[number - 1 :: shares])
    return tuple(pair for pair in pairs if pair[0] in mine)


def pending_of(jobs: Iterable[Job], done: Collection[Pair]) -> tuple[Job, ...]:
    """The jobs without the pairs that are done, and without those of which nothing is left."""
    left = (replace(job, pairs=tuple(pair for pair in job.pairs if pair not in done)) for job in jobs)
    return tuple(job for job in left if job.pairs)
