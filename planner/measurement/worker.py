"""A measuring station: one process with the subject loaded once, that works off jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import nn

from bitplan.planner.costs.candidates import fitted_of
from bitplan.planner.errors import UserError
from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.layers import components_of
from bitplan.planner.graph.stages import stage_modules
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.methods import method_named
from bitplan.planner.measurement.replay import Replay, build_rig
from bitplan.planner.measurement.resume import RecordedReplay, recorded
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.metrics import MetricSet, judge_of, probed_by
from bitplan.planner.pipelines.sources import components, load_subject
from bitplan.planner.pipelines.subject import Subject, conditions_in
from bitplan.planner.pipelines.traced import TraceRecord
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.formats.base import Grid
from bitplan.plans.layers.opening import open_all
from bitplan.plans.layers.simulation import Side, variant
from bitplan.plans.layers.swap import find_layer
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.calibration.ranges import ActivationRange


@dataclass(frozen=True)
class Settings:
    """How a profile is measured. pipeline: its name; prompts: or other conditions; timesteps: calls of each denoiser
    that are judged by their own output; probes: of each metric of the output; dtype: the pipeline's float type;
    metrics: more than there are for this kind of output."""

    pipeline: str
    prompts: tuple[Any, ...]
    schemes: tuple[str, ...]
    generation: Generation
    timesteps: int
    probes: int
    components: tuple[str, ...]
    clip: str | None
    dtype: str = FLOAT32
    metrics: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """For files: what was asked for."""
        found = asdict(self) | {"generation": self.generation.told()}
        return found if self.metrics else {key: value for key, value in found.items() if key != "metrics"}


@dataclass(frozen=True, eq=False)
class WorkerSetup(TraceRecord):
    """All that a worker needs to build a station like the driver's; it can be pickled.

    ranges: calibrated, by layer address; size: bytes of all of the subject's weights; threads: of torch, on which the
    rounding of every loss depends; conditions: what is run on, which the labels in the settings may only name; none
    where the labels are they.
    """

    settings: Settings
    ranges: Mapping[str, ActivationRange]
    size: int
    threads: int
    conditions: tuple[Any, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """Those with layers to plan."""
        return components_of(self.graph)


@dataclass(frozen=True, eq=False)
class Worker:
    """A subject set up for measuring."""

    context: WorkerSetup
    subject: Subject
    parts: Mapping[str, nn.Module]
    judge: MetricSet

    @cached_property
    def stages(self) -> tuple[nn.Module, ...]:
        """What the subject calls as wholes and that matters here: it holds layers to plan, or is a denoiser."""
        return tuple(stage_modules(self.subject.modules, self.context.stages).values())

    @cached_property
    def denoisers(self) -> tuple[nn.Module, ...]:
        """What runs at every step."""
        return tuple(stage_modules(self.subject.modules, self.context.denoisers).values())

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What is run on."""
        return self.context.conditions or conditions_in(self.subject, self.context.settings.prompts)

    @cached_property
    def rig(self) -> Replay:
        """Full precision on all conditions, recorded when first asked for."""
        settings = self.context.settings
        seed = settings.generation.seed
        return build_rig(self.subject, self.denoisers, self.conditions, seed, settings.timesteps)

    @cached_property
    def recorded(self) -> RecordedReplay:
        """The rig with what it computes before each layer."""
        return recorded(self.subject.modules.values(), self.rig)

    def module(self, layer: str) -> nn.Module:
        """The float layer of that address."""
        found: nn.Module = find_layer(self.parts, layer)
        return found

    @cached_property
    def _grids(self) -> dict[str, dict[Side, Grid]]:
        return {}

    def grids(self, layer: str) -> dict[Side, Grid]:
        """Of a layer's weight, as far as they were found: that takes longer than all that is done with them."""
        return self._grids.setdefault(layer, {})

    def measure(self, job: Job) -> Iterator[JobResult]:
        """What the job's method finds, one (layer, scheme) at a time."""
        return method_named(job.method).measure(self, job)

    def variant(self, layer: str, scheme: str, packed: dict[Any, Any]) -> AbstractContextManager[object]:
        """Within it the layer uses the scheme, all else is in full precision. packed: see
        `bitplan.plans.layers.simulation.variant`."""
        parsed = parse_scheme(scheme)
        return variant(self.parts, layer, parsed, fitted_of(self.context.ranges[layer], parsed), packed)


def open_station(context: WorkerSetup) -> Worker:
    """Load subject and encoder as the settings name them, and set up.

    Raises UserError when they cannot be loaded here or the weights are not those that the context is about.
    """
    settings = context.settings
    subject = load_subject(settings.pipeline, settings.generation, settings.dtype)
    open_all(subject.modules)  # for as long as the worker lives
    found = fingerprint(components(subject, context.components), context.graph)
    if found != context.fingerprint:
        raise UserError(
            f"{settings.pipeline} has fingerprint {found[:12]} at a worker and {context.fingerprint[:12]} at the "
            "driver; put the same files on every machine"
        )
    return set_up(context, subject)


def set_up(context: WorkerSetup, subject: Subject, judge: MetricSet | None = None) -> Worker:
    """A station of what is loaded already. Raises UserError where the encoder cannot be loaded."""
    settings = context.settings
    if judge is None:
        judge = judge_of(subject, context.output, settings.prompts, settings.metrics, settings.clip)
        judge = probed_by(judge, context.sample)
    return Worker(context, subject, components(subject, context.components), judge)
