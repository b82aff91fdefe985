"""Compares predicted with measured time of the planned layers alone, as a share of full precision's time.

A plan predicts the sum of its layers' milliseconds, each profiled alone, over all calls of one image. A denoiser call
is one part of these calls, and also runs other operations. Therefore the ratio to full precision is compared, in both
cases for the denoiser's planned layers alone.
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
from bitplan.planner.units import beside_full
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
                f"{self.measured:.2f} measured: {beside_full(self.ms, self.full_ms)}")  # fmt: skip


def predicted_share(plan: Plan, component: str) -> float | None:
    """Returns the predicted time of the component's planned layers over that in full precision.

    None if the plan does not contain it, as older plans.
    """
    planned, full = (_milliseconds(plan.predictions.get(part, {}), component) for part in ("blocks", "full"))
    return planned / full if planned is not None and full else None


def time_layers(
    layers: Sequence[str], runs: Sequence[tuple[nn.Module, Callable[[], object]]], pairs: int
) -> list[list[float]]:
    """Returns, for each run, the seconds spent in the layers with these paths, in `pairs` turns after one warm-up."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(pairs + 1):
        for seconds, (module, run) in zip(times, runs, strict=True):
            with torch.no_grad(), _clocked({module.get_submodule(path) for path in layers}) as clock:
                run()
            if turn:
                seconds.append(clock.seconds)
    return times


def layer_time(against: str, predicted: float, seconds: Sequence[Sequence[float]]) -> LayerTime:
    """Returns the measured and predicted ratios. seconds: in full precision, and with the plan."""
    full, planned = seconds
    share = statistics.median(p / f for p, f in zip(planned, full, strict=True))
    return LayerTime(against, statistics.median(planned) * 1e3, statistics.median(full) * 1e3, share, predicted)


class _Clock:
    """Sums the seconds spent in modules, none of which contains another.

    Attributes:
        seconds: the sum.
        start: when the current call began.
    """

    seconds = start = 0.0

    def begin(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self.start


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
    rows = [sums for block, sums in blocks.items() if component_of(block) == component]
    return sum(sums["ms"] for sums in rows) if rows and all("ms" in sums for sums in rows) else None
