"""Compares predicted with measured time of the planned layers alone, as a share of full precision's time.

A plan predicts the sum of its layers' milliseconds, each profiled alone, over all calls of one image. A denoiser call
is a part of that, and has more in it than these layers; so what is compared is the share of full precision's time, in
both cases of the denoiser's planned layers alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from bitplan.planner.graph.layers import component_of
from bitplan.plans.plan import Plan


@dataclass(frozen=True)
class LayerTime:
    """The time of the planned layers in one denoiser call.

    Attributes:
        against: float type of full precision.
        ms: median milliseconds with the plan.
        full_ms: median milliseconds in full precision.
        measured: median of the ratios of both, for calls in turn.
        predicted: ratio of the plan's own sums.
    """

    against: str
    ms: float
    full_ms: float
    measured: float
    predicted: float

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return asdict(self)

    def __str__(self) -> str:
        return (f"planned layers alone, with the plan over {self.against}: {self.predicted:.2f} predicted, "
                f"{self.measured:.2f} measured ({self.ms:.4g} of {self.full_ms:.4g} ms)")  # fmt: skip


def predicted_share(plan: Plan, component: str) -> float | None:
    """Milliseconds of the component's planned layers over those in full precision, or None where the plan, as older
    ones, does not say."""
    said, full = (_milliseconds(plan.predictions.get(part, {}), component) for part in ("blocks", "full"))
    return said / full if said is not None and full else None


def time_layers(
    layers: Sequence[str], runs: Sequence[tuple[nn.Module, Callable[[], object]]], pairs: int
) -> list[list[float]]:
    """For each run of a module the seconds that it spends in `layers`, by their paths, `pairs` times in turn, after
    one to warm up."""
    found: list[list[float]] = [[] for _ in runs]
    for turn in range(pairs + 1):
        for seconds, (module, run) in zip(found, runs, strict=True):
            with torch.no_grad(), _clocked({module.get_submodule(path) for path in layers}) as clock:
                run()
            if turn:
                seconds.append(clock.spent)
    return found


def layer_time(against: str, predicted: float, seconds: Sequence[Sequence[float]]) -> LayerTime:
    """seconds: in full precision, and with the plan."""
    full, mine = seconds
    share = statistics.median(m / f for m, f in zip(mine, full, strict=True))
    return LayerTime(against, statistics.median(mine) * 1e3, statistics.median(full) * 1e3, share, predicted)


class _Clock:
    """Seconds spent in modules, none of which is part of another."""

    spent = began = 0.0

    def begin(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def end(self, *_: Any) -> None:
        self.spent += time.perf_counter() - self.began


@contextmanager
def _clocked(modules: Iterable[nn.Module]) -> Iterator[_Clock]:
    clock, handles = _Clock(), []
    for module in modules:
        handles += [module.register_forward_pre_hook(clock.begin), module.register_forward_hook(clock.end)]
    try:
        yield clock
    finally:
        for handle in handles:
            handle.remove()


def _milliseconds(blocks: Mapping[str, Mapping[str, float]], component: str) -> float | None:
    mine = [sums for block, sums in blocks.items() if component_of(block) == component]
    return sum(sums["ms"] for sums in mine) if mine and all("ms" in sums for sums in mine) else None
