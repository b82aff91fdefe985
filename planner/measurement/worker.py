"""A worker: a subject that one process has loaded once, and what the methods need to measure it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import nn

from bitplan.planner.costs.parameters import fitted_of
from bitplan.planner.errors import UserError
from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.layers import components_of
from bitplan.planner.measurement.replay import Replay, build_replay
from bitplan.planner.measurement.resume import RecordedReplay, record_replay
from bitplan.planner.pipelines.calling import OneByOne, has_own_calls, learn
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.metrics import MetricSet, choose_metrics, single_layer_metrics
from bitplan.planner.pipelines.sources import components, load_subject
from bitplan.planner.pipelines.subject import Subject, conditions_in
from bitplan.planner.pipelines.traced import TraceRecord
from bitplan.planner.pipelines.weights import Weights
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.formats.base import Grid
from bitplan.plans.layers.addresses import module_at
from bitplan.plans.layers.opening import open_all
from bitplan.plans.layers.simulation import Side, variant
from bitplan.plans.layers.swap import find_layer
from bitplan.plans.parameters import Key
from bitplan.plans.scheme import Scheme, parse_scheme
from bitplan.plans.transforms.base import Fitted
from bitplan.sensitivity.calibration.ranges import ActivationRange


@dataclass(frozen=True)
class Settings:
    """The settings of a profile, which its header stores.

    Attributes:
        pipeline: its name.
        prompts: the prompts or other conditions.
        schemes: texts of the schemes.
        generation: how the pipeline is called.
        timesteps: the number of calls of each denoiser whose own output is measured.
        probes: the number of probes of each metric of the output.
        components: the components to plan; empty for the denoisers.
        clip: folder or hub id of the CLIPModel for alignment metrics.
        dtype: float type of the pipeline.
        metrics: names or references of metrics beside those that are measured by default.
        variant: variant of the weights' files that was asked for.
    """

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
    variant: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them, without `metrics` and `variant` if there are none."""
        fields = asdict(self) | {"generation": self.generation.to_json()}
        return {key: value for key, value in fields.items() if value or key not in ("metrics", "variant")}


@dataclass(frozen=True, eq=False)
class WorkerSetup(TraceRecord):
    """All that another process needs to build a worker like the driver's. It can be pickled.

    Attributes:
        settings: the settings of the profile.
        ranges: layer address -> calibrated input range.
        size: bytes of all weights of the subject.
        threads: torch threads, on which the rounding of every loss depends.
        conditions: the conditions, if the labels in the settings do not contain them; else empty.
        parameters: (owner, transform) -> what the transform was fitted with.
        one_by_one: whether each condition has a call of its own, since probes cannot copy a batch of several.
    """

    settings: Settings
    ranges: Mapping[str, ActivationRange]
    size: int
    threads: int
    conditions: tuple[Any, ...] = ()
    parameters: Mapping[Key, Fitted] = field(default_factory=dict)
    one_by_one: bool = False

    def fitted(self, layer: str, scheme: Scheme) -> Fitted:
        """The fitted parameters that the scheme needs in a layer."""
        return fitted_of(self.graph, layer, scheme, self.ranges[layer], self.parameters)

    @property
    def components(self) -> tuple[str, ...]:
        """The components with layers to plan."""
        return components_of(self.graph)


@dataclass(frozen=True, eq=False)
class Worker:
    """A subject that is ready to be measured in this process.

    Attributes:
        setup: what it was built of.
        subject: the loaded subject.
        parts: component -> module, of the components with layers to plan.
        metric_set: the metrics to measure.
    """

    setup: WorkerSetup
    subject: Subject
    parts: Mapping[str, nn.Module]
    metric_set: MetricSet

    @cached_property
    def stages(self) -> tuple[nn.Module, ...]:
        """The modules that the subject calls as wholes and that hold layers to plan or are denoisers."""
        return tuple(module_at(self.subject.modules, address) for address in self.setup.stages)

    @cached_property
    def denoisers(self) -> tuple[nn.Module, ...]:
        """The modules that run at every step."""
        return tuple(module_at(self.subject.modules, address) for address in self.setup.denoisers)

    @property
    def conditions(self) -> tuple[Any, ...]:
        """The conditions that the subject runs on."""
        return self.setup.conditions or conditions_in(self.subject, self.setup.settings.prompts)

    @cached_property
    def replay(self) -> Replay:
        """The replay on all conditions in full precision, recorded on first use."""
        settings = self.setup.settings
        seed = settings.generation.seed
        return build_replay(self.subject, self.denoisers, self.conditions, seed, settings.timesteps, self._batches[-1])

    @cached_property
    def _batches(self) -> list[int]:
        return [self.setup.batch]

    def halve(self) -> int:
        """Forget the replay, and take half of the conditions a run from now on. Returns how many; 0 for half of one."""
        size = 1 if has_own_calls(self.subject.run) else min(self._batches[-1], len(self.conditions))
        for name in ("replay", "recorded_replay"):
            vars(self).pop(name, None)
        self._batches.append(max(size // 2, 1))
        return size // 2

    @cached_property
    def recorded_replay(self) -> RecordedReplay:
        """The replay with recordings from which it can be resumed at a layer, made on first use."""
        return record_replay(self.subject.modules.values(), self.replay)

    def module(self, layer: str) -> nn.Module:
        """The float layer at an address."""
        module: nn.Module = find_layer(self.parts, layer)
        return module

    @cached_property
    def _grids(self) -> dict[str, dict[Side, Grid]]:
        return {}

    def grids(self, layer: str) -> dict[Side, Grid]:
        """The known grids of a layer's weight, to be extended: computing one takes longer than all uses of it."""
        return self._grids.setdefault(layer, {})

    def variant(self, layer: str, scheme: str, packed: dict[Any, Any]) -> AbstractContextManager[object]:
        """Within it the layer uses the scheme and everything else is in full precision.

        packed: see `bitplan.plans.layers.simulation.variant`.
        """
        parsed = parse_scheme(scheme)
        return variant(self.parts, layer, parsed, self.setup.fitted(layer, parsed), packed)


def open_worker(setup: WorkerSetup) -> Worker:
    """Load the subject and the encoder that the settings name, and build a worker of them.

    Raises UserError if they cannot be loaded here or the weights are not those of the setup.
    """
    settings = setup.settings
    subject = load_subject(settings.pipeline, settings.generation, Weights(settings.dtype, recorded=settings.variant))
    open_all(subject.modules)  # until the worker ends
    loaded = fingerprint(components(subject, setup.components), setup.graph)
    if loaded != setup.fingerprint:
        raise UserError(
            f"{settings.pipeline} has fingerprint {loaded[:12]} at a worker and {setup.fingerprint[:12]} at the "
            "driver; put the same files on every machine"
        )
    return worker_of(setup, subject)


def worker_of(setup: WorkerSetup, subject: Subject, metric_set: MetricSet | None = None) -> Worker:
    """Build a worker of a loaded subject. Raises UserError if the encoder cannot be loaded."""
    settings = setup.settings
    if metric_set is None:
        metric_set = choose_metrics(
            subject, setup.output, settings.prompts, settings.metrics, settings.clip, setup.sample
        )
        metric_set = single_layer_metrics(metric_set, setup.sample)
    learn(subject.run, setup.conditions or conditions_in(subject, settings.prompts), settings.generation.seed)
    if setup.one_by_one:
        subject = replace(subject, run=OneByOne(subject.run))
    return Worker(setup, subject, components(subject, setup.components), metric_set)


def divided(worker: Worker) -> Worker:
    """The same worker with a call for each condition."""
    return worker_of(replace(worker.setup, one_by_one=True), worker.subject, worker.metric_set)
