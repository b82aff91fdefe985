"""Which components a run iterates, and the layer graph of some of them alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import networkx as nx

from bitplan.planner.graph.layers import GraphError, Layer, LayerGraph, component_of


def iterating(graph: LayerGraph) -> tuple[str, ...]:
    """The components that a sampler runs in a loop, in order of their first call.

    Where none is, as in pipelines of one step: the one with most multiply-adds among those that were called as a whole,
    or, failing these too, among all. Raises GraphError for a graph that no run made.
    """
    if not graph.parts:
        raise GraphError("the layer graph does not tell which components ran; trace the model again")
    found = tuple(part.name for part in graph.parts if part.iterates)
    called = [part.name for part in graph.parts if part.calls] or [part.name for part in graph.parts]
    macs = dict.fromkeys(called, 0)
    for layer in graph.layers:
        if (component := component_of(layer.address)) in macs:
            macs[component] += layer.macs
    return found or (max(macs, key=lambda name: macs[name]),)


def only(graph: LayerGraph, components: Collection[str]) -> LayerGraph:
    """The graph as if only these components had been traced.

    A layer of another component passes on what it reads: edges are contracted through it. A layer that is part of
    several components goes by its first address in those that stay. Raises GraphError for an unknown component, or
    where no layer would be left.
    """
    unknown = sorted(set(components) - {part.name for part in graph.parts})
    layers = {layer.address: kept for layer in graph.layers if (kept := _kept(layer, components))}
    if unknown or not layers:
        has = ", ".join(part.name for part in graph.parts)
        problem = f"no component {', '.join(unknown)}" if unknown else f"no layers in {', '.join(components)}"
        raise GraphError(f"the layer graph has {problem}; it has {has}")
    name_of = {old: layer.address for old, layer in layers.items()}
    order = {name: place for place, name in enumerate(name_of.values())}
    edges = ((name_of[a], name_of[b]) for a, b in _contracted(graph.flow, name_of))
    return LayerGraph(
        layers=tuple(layers.values()),
        edges=tuple(sorted(set(edges), key=lambda edge: (order[edge[0]], order[edge[1]]))),
        shared_inputs=_among(graph.shared_inputs, name_of),
        tied=_among(graph.tied, name_of),
        unused=tuple(name for name in graph.unused if component_of(name) in components),
        parts=tuple(part for part in graph.parts if part.name in components),
        reasons=tuple((name, why) for name, why in graph.reasons if component_of(name) in components),
    )


def _kept(layer: Layer, components: Collection[str]) -> Layer | None:
    names = [name for name in (layer.address, *layer.aliases) if component_of(name) in components]
    return replace(layer, address=names[0], aliases=tuple(names[1:])) if names else None


def _contracted(flow: nx.DiGraph, kept: Collection[str]) -> Iterable[tuple[str, str]]:
    """Pairs of kept layers with a path between them that passes no other one."""
    for source in kept:
        seen, waiting = set[str](), list(flow.successors(source))
        while waiting:
            name = waiting.pop()
            if name in kept:
                yield source, name
            elif name not in seen:
                seen.add(name)
                waiting += flow.successors(name)


def _among(groups: Sequence[Sequence[str]], name_of: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    found = (tuple(name_of[name] for name in group if name in name_of) for group in groups)
    return tuple(group for group in found if len(group) > 1)
