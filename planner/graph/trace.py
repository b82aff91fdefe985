"""Find the layer graph by running the model once: never by names, never by reading its code.

`bitplan.planner.graph.flow` keeps, for each memory block (storage), which layers last fed it and which inputs of a
component it comes
from. A layer reads the marks of its input, which gives the edges, and leaves itself as the only feeder of its output;
a component that is entered puts the marks of its arguments there. Roles follow from both: see
`bitplan.planner.graph.roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import networkx as nx
import torch
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
    layers = {first: (module, tuple(others)) for module, (first, *others) in names.items() if kind_of(module)}
    return LayerList(layers, held)


def find_layers(components: Mapping[str, nn.Module]) -> Layers:
    """First address -> (module, other addresses) of every module that can be planned, and of the projections of every
    attention that can be opened."""
    with opened(components):
        return list_layers(components).layers


def find_refused(components: Mapping[str, nn.Module]) -> dict[str, str]:
    """Modules of the layers' classes that cannot be planned, and attentions that cannot be opened, by their first
    address: why."""
    reasons = (
        (names[0], refusal_of(module) or refusal_of_attention(module))
        for module, names in addresses(components).items()
    )
    return {address: why for address, why in reasons if why}


def trace(components: Mapping[str, nn.Module], run: Callable[[], object]) -> LayerGraph:
    """The layer graph of one call of `run`, which runs the components. Hooks are gone afterwards, come what may.

    Modules of the kinds of `bitplan.plans.kinds` become layers when they are called, and so do the projections of
    attentions
    that can be opened, which they are for the run alone. One whose weight is used past its call,
    too, stays unplanned, since that use would see the plan and nothing would measure it; to tell what flows by it, the
    run is then repeated. Errors of `run` pass through.
    Raises GraphError when the components hold no layers or the run calls none.
    """
    with opened(components):
        return _trace(components, run)


def _trace(components: Mapping[str, nn.Module], run: Callable[[], object]) -> LayerGraph:
    listed = list_layers(components)
    found, held = listed.layers, listed.held
    if not found:
        raise GraphError(f"{', '.join(components) or 'nothing'}: none of {CLASSES} inside; name what to plan")
    watch, flow, past = _watched(components, found, run)
    reasons = find_refused(components) | dict.fromkeys((name for name in found if name in past), REASON)
    if past & watch.records.keys():
        watch, flow, _ = _watched(components, {name: its for name, its in found.items() if name not in past}, run)
    if not watch.records:
        names = ", ".join(components)
        raise GraphError(f"the run called none of the {len(found)} layers of {names}; name components that it runs")
    parts = parts_of(components, watch)
    kinds = {name: str(kind_of(found[name][0])) for name in watch.records}
    uses = {name: record.use for name, record in watch.records.items()}
    roles = roles_of(RunFacts(uses, kinds, flow.attentions, {part.name: dict(part.inputs) for part in parts}))
    layers = {
        n: replace(_describe(n, *found[n], record), role=roles[n], held=held.get(n, ""))
        for n, record in watch.records.items()
    }
    order = {name: place for place, name in enumerate(layers)}
    edges = ((source, name) for name, record in watch.records.items() for source in record.feeders)
    return LayerGraph(
        layers=tuple(layers.values()),
        edges=tuple(sorted(edges, key=lambda edge: (order[edge[0]], order[edge[1]]))),
        shared_inputs=_groups(order, ((n, seen) for n, record in watch.records.items() for seen in record.inputs)),
        tied=_groups(order, ((name, _memory(found[name][0].weight)) for name in layers)),
        unused=tuple(name for name in dict.fromkeys((*found, *reasons)) if name not in layers),
        parts=parts,
        reasons=tuple(reasons.items()),
    )


def _watched(
    components: Mapping[str, nn.Module], found: Layers, run: Callable[[], object]
) -> tuple[TraceHooks, Flow, set[str]]:
    """What one run shows of these layers, and those of them whose weight it used past their call."""
    watch = TraceHooks()
    weights = frozenset(w.untyped_storage()._cdata for root in components.values() for w in root.parameters())
    past = BypassUse({address: module.weight for address, (module, _) in found.items()}, watch.calling)
    flow = Flow(watch.marks, weights, past)
    with hooked(components, found, watch), flow:
        run()
    return watch, flow, past.bypassed


def survey(components: Mapping[str, nn.Module], names: Iterable[str]) -> LayerGraph:
    """The graph of the named layers without a run: it has no calls and no edges. A fingerprint needs no more.

    Raises GraphError for an address that holds no layer.
    """
    with opened(components):
        listed, chosen = list_layers(components), list(names)
    missing = [name for name in chosen if name not in listed.layers]
    if missing:
        raise GraphError(f"{len(missing)} layers are not in {', '.join(components)}, such as {missing[0]}")
    return graph_of(listed, chosen)


def graph_of(listed: LayerList, names: Sequence[str]) -> LayerGraph:
    """The graph of the named layers, which are among those listed: without calls and edges."""
    found, held = listed.layers, listed.held
    order = {name: place for place, name in enumerate(names)}
    return LayerGraph(
        layers=tuple(replace(_describe(name, *found[name], LayerRecord()), held=held.get(name, "")) for name in names),
        edges=(),
        shared_inputs=(),
        tied=_groups(order, ((name, _memory(found[name][0].weight)) for name in names)),
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


def _memory(weight: torch.Tensor) -> tuple[int, int]:
    return weight.untyped_storage()._cdata, weight.storage_offset()


def _groups(order: Mapping[str, int], pairs: Iterable[tuple[str, object]]) -> tuple[tuple[str, ...], ...]:
    """The layers that are linked through common keys, directly or by way of others; lone layers are left out."""
    graph = nx.Graph()
    for name, key in pairs:
        graph.add_edge((0, name), (1, key))
    sets = ([name for side, name in part if side == 0] for part in nx.connected_components(graph))
    groups = (tuple(sorted(names, key=order.__getitem__)) for names in sets if len(names) > 1)
    return tuple(sorted(groups, key=lambda names: order[names[0]]))
