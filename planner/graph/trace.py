"""Finds the layer graph by running the model once, without names or source code.

`bitplan.planner.graph.flow` marks each memory block (storage) with the layers that last fed it and the component inputs
that it was computed from. A layer reads the marks of its input, which gives the edges, and becomes the only feeder of
its output; a called component marks its arguments. `bitplan.planner.graph.roles` derives roles from both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import networkx as nx
from torch import nn

from bitplan.planner.graph.bypass import REASON, BypassUse
from bitplan.planner.graph.flow import Flow
from bitplan.planner.graph.hooks import LayerRecord, TraceHooks, hooked, parts_of
from bitplan.planner.graph.layers import GraphError, Layer, LayerCall, LayerGraph
from bitplan.planner.graph.roles import RunFacts, roles_of
from bitplan.plans.kernels.base import geometry_of
from bitplan.plans.kinds import CLASSES, KINDS
from bitplan.plans.layers.addresses import addresses
from bitplan.plans.layers.attention import Attention, held_names
from bitplan.plans.layers.attention import refusal as refusal_of_attention
from bitplan.plans.layers.modules import bias_of, kind_of, refusal_of
from bitplan.plans.layers.opening import opened
from bitplan.plans.layers.ties import memory_of, tied_outside, ties

Layers = dict[str, tuple[Any, tuple[str, ...]]]  # first address -> module, other addresses


@dataclass(frozen=True, eq=False)
class LayerList:
    """The layers of components whose attentions are open.

    Attributes:
        layers: first address -> module and its other addresses.
        held: projection of an open attention -> address of the tensor that holds its weight while it is closed.
    """

    layers: Layers
    held: Mapping[str, str]


def list_layers(components: Mapping[str, nn.Module]) -> LayerList:
    """Lists the layers that can be planned; attentions must be open for their projections to be among them."""
    names = addresses(components)
    held = {
        f"{first}.{layer}": f"{first}.{tensor}"
        for module, (first, *_) in names.items()
        if isinstance(module, Attention)
        for layer, tensor in held_names(module).items()
    }
    tied = ties(components)
    layers = {
        first: (module, tuple(others))
        for module, (first, *others) in names.items()
        if kind_of(module) and first not in tied
    }
    return LayerList(layers, held)


def find_layers(components: Mapping[str, nn.Module]) -> Layers:
    """Returns first address -> (module, other addresses) of every module that can be planned, including the projections
    of attentions that can be opened."""
    with opened(components):
        return list_layers(components).layers


def find_refused(components: Mapping[str, nn.Module]) -> dict[str, str]:
    """Returns first address -> reason for modules of layer classes that cannot be planned, also because of a tie, and
    for attentions that cannot be opened."""
    reasons = (
        (names[0], refusal_of(module) or refusal_of_attention(module))
        for module, names in addresses(components).items()
    )
    return {address: why for address, why in reasons if why} | ties(components)


def trace(components: Mapping[str, nn.Module], run: Callable[[], object]) -> LayerGraph:
    """Traces the layer graph of one call of `run`, which runs the components. The hooks are always removed.

    Modules of the kinds of `bitplan.plans.kinds` become layers when they are called, and so do the projections of
    attentions that can be opened, which are open during the run. A layer whose weight is also used outside its call
    stays unplanned, because the effect of a plan on that use is not measured; the run is then repeated to find the data
    flow without it. Errors of `run` propagate.

    Raises GraphError if the components have no layers or the run calls none.
    """
    with opened(components):
        return _trace(components, run)


def _trace(components: Mapping[str, nn.Module], run: Callable[[], object]) -> LayerGraph:
    listed = list_layers(components)
    modules = listed.layers
    if not modules:
        raise GraphError(f"{', '.join(components) or 'nothing'}: none of {CLASSES} inside; name what to plan")
    hooks, flow, bypassed = _observe(components, modules, run)
    outside = {name: why for name, why in tied_outside(components, hooks.records).items() if name not in bypassed}
    reasons = find_refused(components) | {name: REASON for name in modules if name in bypassed} | outside
    if left := {*bypassed, *outside} & hooks.records.keys():
        hooks, flow, _ = _observe(components, {name: m for name, m in modules.items() if name not in left}, run)
    hooks.forget_empty()
    if not hooks.records:
        names, used = ", ".join(components), sum(name in bypassed for name in modules)
        if used:
            of = f"{used} of the {len(modules)} layers of {names}"
            raise GraphError(f"the run uses the weights of {of} outside their calls, and calls no other layer; let it "
                             "call them, or name other components")  # fmt: skip
        raise GraphError(f"the run called none of the {len(modules)} layers of {names}; name components that it runs")
    parts = parts_of(components, hooks)
    kinds = {name: str(kind_of(modules[name][0])) for name in hooks.records}
    uses = {name: record.use for name, record in hooks.records.items()}
    roles = roles_of(RunFacts(uses, kinds, flow.attentions, {part.name: dict(part.inputs) for part in parts}))
    layers = {
        n: replace(_describe(n, *modules[n], record), role=roles[n], held=listed.held.get(n, ""))
        for n, record in hooks.records.items()
    }
    order = {name: place for place, name in enumerate(layers)}
    edges = ((source, name) for name, record in hooks.records.items() for source in record.feeders)
    return LayerGraph(
        layers=tuple(layers.values()),
        edges=tuple(sorted(edges, key=lambda edge: (order[edge[0]], order[edge[1]]))),
        shared_inputs=_groups(order, ((n, key) for n, record in hooks.records.items() for key in record.inputs)),
        tied=_groups(order, ((name, memory_of(modules[name][0].weight)) for name in layers)),
        unused=tuple(name for name in dict.fromkeys((*modules, *reasons)) if name not in layers),
        parts=parts,
        reasons=tuple(reasons.items()),
    )


def _observe(
    components: Mapping[str, nn.Module], layers: Layers, run: Callable[[], object]
) -> tuple[TraceHooks, Flow, set[str]]:
    """Runs once, and returns the hooks, the data flow and the layers whose weight is used outside their calls."""
    hooks = TraceHooks()
    weights = frozenset(w.untyped_storage()._cdata for root in components.values() for w in root.parameters())
    bypass = BypassUse({address: module.weight for address, (module, _) in layers.items()}, hooks.calling)
    flow = Flow(hooks.marks, weights, bypass)
    with hooked(components, layers, hooks), flow:
        run()
    return hooks, flow, bypass.bypassed


def survey(components: Mapping[str, nn.Module], names: Iterable[str]) -> LayerGraph:
    """Returns the graph of the named layers without a run: no calls, no edges, enough for a fingerprint.

    Raises GraphError for an address that is not a layer.
    """
    with opened(components):
        listed, addressed = list_layers(components), list(names)
    missing = [name for name in addressed if name not in listed.layers]
    if missing:
        raise GraphError(f"{len(missing)} layers are not in {', '.join(components)}, such as {missing[0]}")
    return graph_of(listed, addressed)


def graph_of(listed: LayerList, names: Sequence[str]) -> LayerGraph:
    """Returns the graph of some of the listed layers, without calls and edges."""
    modules = listed.layers
    order = {name: place for place, name in enumerate(names)}
    return LayerGraph(
        layers=tuple(
            replace(_describe(name, *modules[name], LayerRecord()), held=listed.held.get(name, "")) for name in names
        ),
        edges=(),
        shared_inputs=(),
        tied=_groups(order, ((name, memory_of(modules[name][0].weight)) for name in names)),
        unused=(),
    )


def _describe(address: str, module: Any, aliases: tuple[str, ...], record: LayerRecord) -> Layer:
    shape, biased = tuple(module.weight.shape), bias_of(module) is not None
    kind = KINDS[str(kind_of(module))]
    return Layer(
        address=address,
        aliases=aliases,
        kind=kind.name,
        weight=shape,
        bias=biased,
        parameters=prod(shape) + biased * shape[0],
        geometry=geometry_of(module),
        calls=tuple(LayerCall(i, o, kind.macs(shape, prod(o)), times) for (i, o), times in record.shapes.items()),
    )


def _groups(order: Mapping[str, int], pairs: Iterable[tuple[str, object]]) -> tuple[tuple[str, ...], ...]:
    """Returns the groups of two or more layers that are connected by common keys, directly or through other layers."""
    graph = nx.Graph()
    for name, key in pairs:
        graph.add_edge((0, name), (1, key))
    sets = ([name for side, name in part if side == 0] for part in nx.connected_components(graph))
    groups = (tuple(sorted(names, key=order.__getitem__)) for names in sets if len(names) > 1)
    return tuple(sorted(groups, key=lambda names: order[names[0]]))
