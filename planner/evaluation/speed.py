"""Times one denoiser call with a plan and in float types, as paired medians, eager and compiled."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.planner.applied.binding import Binding
from bitplan.planner.costs.allocator import kept_memory
from bitplan.planner.costs.machine import about_machine
from bitplan.planner.errors import UserError
from bitplan.planner.evaluation.layer_time import LayerTime, layer_time, predicted_share, time_layers
from bitplan.planner.files import write_json
from bitplan.planner.graph.layers import component_of
from bitplan.planner.pipelines.calling import settled
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.quiet import quiet_libraries
from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.planner.texts import table
from bitplan.planner.units import show_bytes
from bitplan.plans.layers.modules import module_bytes
from bitplan.plans.layers.opening import opened
from bitplan.plans.plan import Plan
from bitplan.sensitivity.runs.calls import RecordedCall, recorded_calls
from bitplan.sensitivity.runs.nested import copied, mapped

PLAN = "plan"


@dataclass(frozen=True)
class Timing:
    """The time of one variant.

    Attributes:
        name: the name of the variant.
        compiled: whether it ran under `torch.compile`.
        ms: median milliseconds of one denoiser call.
        times: baseline -> how many times as fast, the median over calls in turn.
        bytes: of all parameters and buffers.
    """

    name: str
    compiled: bool
    ms: float
    times: Mapping[str, float]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return asdict(self)

    def __str__(self) -> str:
        times = "".join(f", {ratio:.2f} times as fast as {base}" for base, ratio in self.times.items())
        return f"{self.name}{', compiled' * self.compiled}: {self.ms:.4g} ms, {show_bytes(self.bytes)}{times}"


@dataclass(frozen=True)
class Timings:
    """The times of all variants.

    Attributes:
        rows: one for each variant, baselines first.
        about: how they were measured.
        layers: the planned layers alone; None where the plan does not predict them.
    """

    rows: tuple[Timing, ...]
    about: Mapping[str, Any]
    layers: LayerTime | None = None

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        layers = {} if self.layers is None else {"planned_layers": self.layers.to_json()}
        return {"about": dict(self.about), "rows": [row.to_json() for row in self.rows], **layers}

    def __str__(self) -> str:
        """A table, and a line on the planned layers alone."""
        bases, calls = list(self.rows[0].times), f"denoiser call, {self.about.get('prompts', 1)} at a time"
        head = [calls, "ms", *(f"times as fast as {base}" for base in bases), "bytes"]
        rows = [
            [row.name + ", compiled" * row.compiled, f"{row.ms:.4g}", *(f"{row.times[b]:.2f}" for b in bases),
             show_bytes(row.bytes)]
            for row in self.rows
        ]  # fmt: skip
        text = table(rows, head)
        return text if self.layers is None else f"{text}\n\n{self.layers}"


@dataclass(frozen=True, eq=False)
class TimedVariant:
    """A denoiser to time on one recorded call.

    Attributes:
        name: of the variant.
        module: the denoiser.
        call: the arguments.
        compiled: whether to run it under `torch.compile`.
        baseline: whether other variants are compared with it.
    """

    name: str
    module: nn.Module
    call: RecordedCall
    compiled: bool = False
    baseline: bool = False

    def runner(self) -> Runner:
        """Returns what calls it. torch raises an error at a graph break."""
        run: Any = torch.compile(self.module, fullgraph=True) if self.compiled else self.module
        return Runner(run, self.call)


@dataclass(frozen=True, eq=False)
class Runner:
    """Repeats a recorded call.

    Attributes:
        run: the function.
        call: the arguments.
    """

    run: Callable[..., object]
    call: RecordedCall

    def __call__(self) -> float:
        """Calls it once and returns the seconds. Each call gets new copies of the arguments, since it may write into
        them or use them up; copying is not timed."""
        args, kwargs = copied((self.call.args, dict(self.call.kwargs)))
        start = time.perf_counter()
        self.run(*args, **kwargs)
        return time.perf_counter() - start


def variants_of(
    part: tuple[str, nn.Module], plan: Plan, call: RecordedCall, against: Sequence[str], compiled: bool
) -> list[TimedVariant]:
    """Returns the baselines in the float types `against`, the plan in the pipeline's type, and then all compiled.

    part: the denoiser's component and the module. Raises PlanError, KernelError.
    """
    name, denoiser = part
    variants = [baseline(dtype, denoiser, call) for dtype in against]
    planned = copy.deepcopy(denoiser)
    layers = {address for address in plan.schemes if component_of(address) == name}
    Binding(plan, {name: planned}).swap(True, layers, keep_originals=False)
    variants.append(TimedVariant(PLAN, planned, call))
    return variants + [replace(v, compiled=True, baseline=False) for v in variants if compiled]


def baseline(dtype: str, module: nn.Module, call: RecordedCall, channels_last: bool = True) -> TimedVariant:
    """Returns a copy of the module and the call in a float type, named after it.

    channels_last: run convolutions in that memory format, their fastest.
    """

    def cast(x: Tensor) -> Tensor:
        return x.to(getattr(torch, dtype)) if x.is_floating_point() else x

    with quiet_libraries():  # diffusers warns of every change of the type
        converted = copy.deepcopy(module).to(getattr(torch, dtype))
        if channels_last and any(isinstance(layer, nn.Conv2d) for layer in converted.modules()):
            converted = converted.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TimedVariant(
        dtype, converted, RecordedCall(mapped(call.args, cast), mapped(call.kwargs, cast)), baseline=True
    )


@torch.no_grad()
def seconds_in_turn(variants: Sequence[TimedVariant], pairs: int) -> list[tuple[float, ...]]:
    """Returns the seconds of each variant's calls, in `pairs` turns after one warm-up.

    The process keeps freed memory, as for the cost table.
    """
    runs = [variant.runner() for variant in variants]
    with quiet_libraries(), kept_memory():
        seconds = [[run() for run in runs] for _ in range(pairs + 1)][1:]
    return list(zip(*seconds, strict=True))


def time_variants(variants: Sequence[TimedVariant], pairs: int) -> tuple[Timing, ...]:
    """Returns the medians of `seconds_in_turn`."""
    columns = seconds_in_turn(variants, pairs)
    bases = {v.name: columns[i] for i, v in enumerate(variants) if v.baseline}
    return tuple(
        Timing(
            v.name, v.compiled, statistics.median(own) * 1e3,
            {name: statistics.median(b / s for b, s in zip(base, own, strict=True)) for name, base in bases.items()},
            module_bytes(v.module),
        )
        for v, own in zip(variants, columns, strict=True)
    )  # fmt: skip


def time_planned_layers(
    part: str, plan: Plan, variants: Sequence[TimedVariant], pairs: int, generation: tuple[int, float | None]
) -> LayerTime | None:
    """Returns the predicted and measured time of the plan's layers in the component `part` alone.

    None if the plan does not predict it, or predicts it for another generation or a float type that is not a baseline.
    generation: prompts in one call, guidance.
    """
    share, predicted = predicted_share(plan, part), (1, plan.calibration.get("guidance"))
    timed = {v.name: v for v in variants if not v.compiled}
    full = timed.get(plan.model.get("dtype", "float32"))
    if share is None or full is None or generation != predicted or plan.calibration.get("options"):
        return None
    paths = [address.removeprefix(f"{part}.") for address in plan.schemes if address.startswith(f"{part}.")]
    runs = [(v.module, v.runner()) for v in (full, timed[PLAN])]
    with quiet_libraries(), opened({part: full.module}), kept_memory():
        return layer_time(full.name, share, time_layers(paths, runs, pairs))


def record_call(subject: Subject, denoiser: nn.Module, conditions: Sequence[Any]) -> RecordedCall:
    """Records the denoiser's first call for these conditions. Raises UserError if it is never called."""

    def record() -> list[RecordedCall]:
        with recorded_calls(denoiser) as calls:
            run_subject(subject, conditions, seed=0)
        return calls

    calls = settled(subject.run, record)
    if not calls:
        raise UserError(f"{subject.kind} never calls the {type(denoiser).__name__} as a whole; nothing can be timed")
    return calls[0]


def conditions(pipeline: str, prompts: int, pairs: int, generation: Generation) -> dict[str, Any]:
    """Returns how the variants were timed."""
    fields = {"pipeline": pipeline, "prompts": prompts, "pairs": pairs}
    return {**fields, **generation.to_json(), **about_machine()}


def write_timings(timings: Timings, path: Path) -> None:
    """Writes the timings as JSON."""
    write_json(timings.to_json(), path)
