"""Runs a subject and records its layers, the modules that it calls and those that run at every step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from bitplan.planner.errors import UserError
from bitplan.planner.graph.components import iterating, only
from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.layers import LayerGraph, component_of, components_of
from bitplan.planner.graph.naming import components_in, matching, tell_counts
from bitplan.planner.graph.stages import watched_stages
from bitplan.planner.graph.trace import trace
from bitplan.planner.graph.union import joined
from bitplan.planner.pipelines.additions import check_additions, eagerly
from bitplan.planner.pipelines.calling import learn, settled
from bitplan.planner.pipelines.coverage import BATCH, Calls, Coverage, cover, is_irregular, weighed
from bitplan.planner.pipelines.memory import LiveTensors, batch_of
from bitplan.planner.pipelines.sources import float_components
from bitplan.planner.pipelines.subject import Subject, output_of, run_subject
from bitplan.planner.progress import current
from bitplan.plans.dtypes import FLOAT32, float_type
from bitplan.plans.layers.addresses import addresses
from bitplan.plans.layers.opening import opened
from bitplan.plans.layers.swap import find_layer
from bitplan.sensitivity.calibration.ranges import ActivationRange, calibrate


@dataclass(frozen=True, eq=False)
class TraceRecord:
    """The result of tracing one run of a subject; it can be pickled.

    Attributes:
        graph: of the layers to plan.
        fingerprint: of the same layers.
        output: kind of the outputs.
        stages: addresses of modules that the subject calls as wholes and that are denoisers, or hold layers to plan
            and keep nothing from call to call.
        denoisers: addresses of modules that run at every step of a sampler.
        sample: the output of the run.
        batch: the number of conditions that one run may take (`memory.batch_of`).
    """

    graph: LayerGraph
    fingerprint: str
    output: str
    stages: tuple[str, ...]
    denoisers: tuple[str, ...]
    sample: Tensor
    batch: int = field(default=BATCH, kw_only=True)


@dataclass(frozen=True, eq=False)
class Traced(TraceRecord):
    """A loaded subject with the record of one run, or of its runs on all conditions.

    Attributes:
        subject: what was run.
        parts: component -> module, of the components to plan.
        ranges: layer -> the range of its input on all conditions; empty after one run.
        apart: whether each condition must have its own call, since conditions run different layers or rows.
        dtype: float type of the components that ran, see `float_type`.
    """

    subject: Subject
    parts: Mapping[str, nn.Module]
    ranges: Mapping[str, ActivationRange] = field(default_factory=dict)
    apart: bool = False
    dtype: str = FLOAT32

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Layer address -> its module."""
        return {layer.address: find_layer(self.parts, layer.address) for layer in self.graph.layers}


@dataclass(frozen=True, eq=False)
class Run:
    """What was recorded of traced runs.

    Attributes:
        graph: of all components.
        stages: addresses of the modules that the subject called.
        keeping: those that keep a state.
        sample: the output of the first run.
        held: bytes that the run of one condition holds at once.
    """

    graph: LayerGraph
    stages: Collection[str]
    keeping: Collection[str]
    sample: Tensor
    held: int


def examine(subject: Subject, conditions: Sequence[Any], seed: int = 0, names: Sequence[str] = ()) -> Traced:
    """Traces the subject on its first condition; the counts of the graph are those of one sample.

    names: what to plan, by default the denoisers: components, blocks or layers, or patterns of these. Raises UserError,
    GraphError.
    """
    return _record(subject, _first(subject, conditions, seed, names), names)


def examine_all(subject: Subject, conditions: Sequence[Any], seed: int = 0, names: Sequence[str] = ()) -> Traced:
    """Traces the subject on its first condition and on those that reach more layers, and measures the ranges of the
    layers' inputs on all of them; the counts of the graph are the means of all conditions.

    names: as in `examine`. Raises UserError, GraphError, CalibrationError.
    """
    run = _first(subject, conditions, seed, names)
    with current().phase("calibration"), eagerly(), opened(subject.modules):
        planned = components_in(names, subject.modules) or iterating(run.graph)
        found = cover(subject, conditions, seed, run.graph, planned, min(BATCH, batch_of(run.held)))
        traced = _record(subject, _joined(subject, conditions, seed, run, found.alone), names)
        return _covered(traced, found, partial(run_subject, subject, conditions, seed, 1))


def _first(subject: Subject, conditions: Sequence[Any], seed: int, names: Sequence[str]) -> Run:
    check_additions(subject.modules)
    float_components(subject, components_in(names, subject.modules) or tuple(subject.modules))
    with current().phase("tracing"), eagerly():
        run = settled(subject.run, partial(_traced_run, subject, conditions[:1], seed))
        learn(subject.run, conditions, seed)
    return run


def _joined(subject: Subject, conditions: Sequence[Any], seed: int, first: Run, alone: Sequence[Calls]) -> Run:
    """The first run joined with those of the conditions that reach more layers, by their calls."""
    runs, reached = [first], set(first.graph.by_address)
    for place, calls in enumerate(alone):
        own = {name for name, shapes in calls.items() if shapes}
        if not own <= reached:
            runs.append(_traced_run(subject, [conditions[place]], seed + place))
            reached |= own
    stages = dict.fromkeys(stage for run in runs for stage in run.stages)
    keeping = {stage for run in runs for stage in run.keeping}
    return Run(joined([run.graph for run in runs]), stages, keeping, first.sample, max(run.held for run in runs))


def _covered(traced: Traced, found: Coverage, run: Callable[[], object]) -> Traced:
    """The trace with the ranges and calls of all conditions. run: runs each condition alone."""
    first_of = {module: name for module, (name, *_) in addresses(traced.subject.modules).items()}
    own = {name: first_of[module] for name, module in traced.modules.items()}
    layers = tuple(weighed(layer, found.alone, own[layer.address]) for layer in traced.graph.layers)
    ranges = {name: found.ranges[first] for name, first in own.items() if first in found.ranges}
    if missing := {name: module for name, module in traced.modules.items() if name not in ranges}:
        ranges |= calibrate(missing, run)
    apart = any(layer.runs > 1 for layer in layers) or is_irregular(found.alone, [*own.values()])
    return replace(traced, graph=replace(traced.graph, layers=layers), ranges=ranges, apart=apart)


def _record(subject: Subject, run: Run, names: Sequence[str]) -> Traced:
    sampled = iterating(run.graph)
    graph = only(run.graph, tuple(names) or sampled)
    if bare := [layer.address for layer in graph.layers if "." not in layer.address]:
        raise UserError(f"{bare[0]} is a layer without a parent module; put it into an nn.Sequential, or leave it out")
    parts = float_components(subject, components_in(names, components_of(graph)) or sampled)
    tell_counts({name: matching(name, list(graph.by_address)) for name in names if name not in parts})
    denoisers = tuple(address for address in run.stages if component_of(address) in sampled)
    planned = tuple(f"{layer.address}." for layer in graph.layers)
    relevant = (a for a in run.stages if a in denoisers or any(layer.startswith(f"{a}.") for layer in planned))
    stages = tuple(a for a in relevant if a in denoisers or a not in run.keeping)
    kind = output_of(subject, run.sample)
    found = graph, fingerprint(parts, graph), kind, stages, denoisers, run.sample
    return Traced(*found, subject, parts, dtype=_float_type(subject, run), batch=batch_of(run.held))


def _traced_run(subject: Subject, conditions: Sequence[Any], seed: int) -> Run:
    """Runs the subject once; records its graph, the stages that it calls, those that keep a state, and its output."""
    outputs: list[Tensor] = []
    keeping: set[str] = set()
    with watched_stages(subject.modules, keeping) as calls, LiveTensors() as held:
        whole = trace(subject.modules, lambda: outputs.append(run_subject(subject, conditions, seed)))
    return Run(whole, calls, keeping, outputs[0], held.most)


def _float_type(subject: Subject, run: Run) -> str:
    ran = {component_of(address) for address in run.stages}
    return float_type(module for name, module in subject.modules.items() if name in ran)
