"""Joins the layer graphs of several runs of one model, which need not call the same layers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import networkx as nx

from bitplan.planner.graph.layers import ComponentRun, LayerGraph

Groups = tuple[tuple[str, ...], ...]


def joined(graphs: Sequence[LayerGraph]) -> LayerGraph:
    """The graph of all runs together: layers and edges of any of them, each layer as in the first run that calls it.

    A layer that cannot be planned in one of the runs is unused in all.
    """
    if len(graphs) == 1:
        return graphs[0]
    reasons = {name: why for graph in graphs for name, why in graph.reasons}
    barred = reasons.keys()  # such as one that another run uses outside its call
    layers = {layer.address: layer for graph in reversed(graphs) for layer in graph.layers}
    names = dict.fromkeys(name for graph in graphs for name in graph.by_address if name not in barred)
    order = {name: place for place, name in enumerate(names)}
    edges = {edge for graph in graphs for edge in graph.edges if barred.isdisjoint(edge)}
    unused = dict.fromkeys((*graphs[0].unused, *barred))
    return LayerGraph(
        layers=tuple(layers[name] for name in names),
        edges=tuple(sorted(edges, key=lambda edge: (order[edge[0]], order[edge[1]]))),
        shared_inputs=_groups((group for graph in graphs for group in graph.shared_inputs), order),
        tied=_groups((group for graph in graphs for group in graph.tied), order),
        unused=tuple(name for name in unused if name not in order),
        parts=_parts(graphs),
        reasons=tuple(reasons.items()),
    )


def _groups(groups: Iterable[Sequence[str]], order: Mapping[str, int]) -> Groups:
    """The groups, joined where they have a layer in common."""
    graph = nx.Graph()
    for group in groups:
        nx.add_path(graph, [name for name in group if name in order])
    sets = (sorted(names, key=order.__getitem__) for names in nx.connected_components(graph))
    return tuple(sorted((tuple(names) for names in sets if len(names) > 1), key=lambda names: order[names[0]]))


def _parts(graphs: Sequence[LayerGraph]) -> tuple[ComponentRun, ...]:
    """Each component as in the first run that calls it; it iterates if it does in any run."""
    parts: dict[str, ComponentRun] = {}
    for part in (part for graph in graphs for part in graph.parts):
        old = parts.setdefault(part.name, part)
        first = old if old.inputs or old.calls else part
        parts[part.name] = replace(first, iterates=old.iterates or part.iterates)
    return tuple(parts.values())
