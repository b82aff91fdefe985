"""Runs a subject once and records its layers, the modules that it calls and those that run at every step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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
from bitplan.planner.pipelines.additions import check_additions, eagerly
from bitplan.planner.pipelines.calling import learn, settled
from bitplan.planner.pipelines.sources import float_components
from bitplan.planner.pipelines.subject import Subject, output_of, run_subject
from bitplan.planner.progress import current
from bitplan.plans.layers.swap import find_layer


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
    """

    graph: LayerGraph
    fingerprint: str
    output: str
    stages: tuple[str, ...]
    denoisers: tuple[str, ...]
    sample: Tensor


@dataclass(frozen=True, eq=False)
class Traced(TraceRecord):
    """A loaded subject with the record of one run.

    Attributes:
        subject: what was run.
        parts: component -> module, of the components to plan.
    """

    subject: Subject
    parts: Mapping[str, nn.Module]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Layer address -> its module."""
        return {layer.address: find_layer(self.parts, layer.address) for layer in self.graph.layers}


def examine(subject: Subject, conditions: Sequence[Any], seed: int = 0, names: Sequence[str] = ()) -> Traced:
    """Traces the subject on its first condition; the counts of the graph are those of one sample.

    names: what to plan, by default the denoisers: components, blocks or layers, or patterns of these. Raises UserError,
    GraphError.
    """
    check_additions(subject.modules)
    float_components(subject, components_in(names, subject.modules) or tuple(subject.modules))
    with current().phase("tracing"), eagerly():
        whole, calls, keeping, sample = settled(subject.run, partial(_traced_run, subject, conditions[:1], seed))
        learn(subject.run, conditions, seed)
    sampled = iterating(whole)
    graph = only(whole, tuple(names) or sampled)
    if bare := [layer.address for layer in graph.layers if "." not in layer.address]:
        raise UserError(f"{bare[0]} is a layer without a parent module; put it into an nn.Sequential, or leave it out")
    parts = float_components(subject, components_in(names, components_of(graph)) or sampled)
    tell_counts({name: matching(name, list(graph.by_address)) for name in names if name not in parts})
    denoisers = tuple(address for address in calls if component_of(address) in sampled)
    planned = tuple(f"{layer.address}." for layer in graph.layers)
    relevant = (a for a in calls if a in denoisers or any(layer.startswith(f"{a}.") for layer in planned))
    stages = tuple(a for a in relevant if a in denoisers or a not in keeping)
    kind = output_of(subject, sample)
    return Traced(graph, fingerprint(parts, graph), kind, stages, denoisers, sample, subject, parts)


def _traced_run(
    subject: Subject, conditions: Sequence[Any], seed: int
) -> tuple[LayerGraph, Collection[str], set[str], Tensor]:
    """Runs the subject once. Returns its graph, the stages that it called, those that keep a state, and its output."""
    outputs: list[Tensor] = []
    keeping: set[str] = set()
    with watched_stages(subject.modules, keeping) as calls:
        whole = trace(subject.modules, lambda: outputs.append(run_subject(subject, conditions, seed)))
    return whole, calls, keeping, outputs[0]
