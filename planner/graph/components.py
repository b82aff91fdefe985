"""Finds the components that a run iterates, and reduces a layer graph to some components. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import networkx as nx

from bitplan.planner.graph.layers import GraphError, Layer, LayerGraph, component_of
from bitplan.planner.graph.naming import layers_named, matching


def iterating(graph: LayerGraph) -> tuple[str, ...]:
    """The components that a sampler runs in a loop, in order of their first call.

    If there is none, as in pipelines of one step, it is the component with most multiply-adds among those that were
    called as a whole, or among all. Raises GraphError for a graph that was not made by a run.
    """
    if not graph.parts:
        raise GraphError("the layer graph does not contain which components ran; trace the model again")
    looped = tuple(part.name for part in graph.parts if part.iterates)
    called = [part.name for part in graph.parts if part.calls] or [part.name for part in graph.parts]
    macs = dict.fromkeys(called, 0)
    for layer in graph.layers:
        if (component := component_of(layer.address)) in macs:
            macs[component] += layer.macs
    return looped or (max(macs, key=lambda name: macs[name]),)


def only(graph: LayerGraph, names: Collection[str]) -> LayerGraph:
    """The graph as if only these layers had been traced. names: of components, blocks or layers, or patterns of these,
    as `bitplan.planner.graph.naming.matching` reads them.

    Edges are contracted through the other layers. A layer with several addresses gets its first one that is named.
    Raises GraphError for a component that did not run, or whose layers did not, and UserError for another name.
    """
    ran = [part.name for part in graph.parts]
    addresses = [name for layer in graph.layers for name in (layer.address, *layer.aliases)]
    whole = [name for name in names if "." not in name and not set(name) & set("*?[")]
    if unknown := sorted(set(whole) - set(ran)):
        raise GraphError(f"the layer graph has no component {', '.join(unknown)}; it has {', '.join(ran)}")
    if idle := [name for name in whole if not matching(name, addresses)]:
        has = ", ".join(dict.fromkeys(map(component_of, addresses)))
        raise GraphError(f"the run reached no layer of {', '.join(idle)} that can be planned; layers are in {has}")
    chosen = {layer for its in layers_named(names, addresses).values() for layer in its}
    components = set(map(component_of, chosen))
    layers = {layer.address: own for layer in graph.layers if (own := _restricted(layer, chosen))}
    name_of = {old: layer.address for old, layer in layers.items()}
    order = {name: place for place, name in enumerate(name_of.values())}
    edges = ((name_of[a], name_of[b]) for a, b in _contracted(graph.flow, name_of))
    return LayerGraph(
        layers=tuple(layers.values()),
        edges=tuple(sorted(set(edges), key=lambda edge: (order[edge[0]], order[edge[1]]))),
        shared_inputs=_among(graph.shared_inputs, name_of),
        tied=_among(graph.tied, name_of),
        unused=tuple(name for name in graph.unused if any(matching(own, [name]) for own in names)),
        parts=tuple(part for part in graph.parts if part.name in components),
        reasons=tuple((name, why) for name, why in graph.reasons if any(matching(own, [name]) for own in names)),
    )


def _restricted(layer: Layer, chosen: Collection[str]) -> Layer | None:
    names = [name for name in (layer.address, *layer.aliases) if name in chosen]
    return replace(layer, address=names[0], aliases=tuple(names[1:])) if names else None


def _contracted(flow: nx.DiGraph, names: Collection[str]) -> Iterable[tuple[str, str]]:
    """Pairs of the named layers with a path between them that passes no other named layer."""
    for source in names:
        visited, waiting = set[str](), list(flow.successors(source))
        while waiting:
            name = waiting.pop()
            if name in names:
                yield source, name
            elif name not in visited:
                visited.add(name)
                waiting += flow.successors(name)


def _among(groups: Sequence[Sequence[str]], name_of: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    renamed = (tuple(name_of[name] for name in group if name in name_of) for group in groups)
    return tuple(group for group in renamed if len(group) > 1)
