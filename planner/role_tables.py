"""Tables by role: what a model spends where, and what a plan gives to whom. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tabulate import tabulate

from planner.formulate import KEEP, twins_of
from planner.graph import Layer, LayerGraph, from_json
from planner.recording import check_same_model
from planner.roles import ROLES, UNKNOWN
from planner.store import Profile
from planner.units import show_bytes
from plans.plan import Plan
from sensitivity.table import LossTable


def by_role(graph: LayerGraph) -> dict[str, list[Layer]]:
    """The layers of each role that there is, in the order of ROLES; none for a graph that tells no roles."""
    found: dict[str, list[Layer]] = {role: [] for role in ROLES}
    for layer in graph.layers:
        if layer.role != UNKNOWN:
            found.setdefault(layer.role, []).append(layer)
    return {role: layers for role, layers in found.items() if layers}


def model_roles(graph: LayerGraph) -> str:
    """By role: layers, weights, and their share of the multiply-adds. Empty where no roles are told."""
    total = sum(layer.macs for layer in graph.layers) or 1
    again = twins_of(graph.tied)
    rows = [
        {
            "role": role,
            "layers": str(len(layers)),
            "weights": f"{_weights(layers, again):,}",
            "multiply-adds": f"{sum(layer.macs for layer in layers) / total:.1%}",
        }
        for role, layers in by_role(graph).items()
    ]
    return _table(rows)


def plan_roles(plan: Plan, store: Profile) -> str:
    """By role: layers, bits a weight (scales included), bytes, and predicted losses. Empty where the profile
    tells no roles. Raises UserError for a profile of another model."""
    check_same_model(plan, store)
    graph, losses = from_json(store.graph()), LossTable.of(store.measurements())
    size = {(cost.layer, cost.scheme): cost.bytes for cost in store.costs()}
    again = twins_of(graph.tied)
    rows = []
    for role, layers in by_role(graph).items():
        chosen = [(layer.address, plan.schemes[layer.address]) for layer in layers]
        held = sum(size[pair] for pair in chosen if not (pair[0] in again and pair[1] == KEEP))
        weights = _weights(layers, again)
        row = {"role": role, "layers": str(len(layers))}
        row["bits a weight"] = f"{8 * held / weights:.2f}" if weights else "-"
        row["bytes"] = show_bytes(held)
        for metric in store.families():
            row[metric] = f"{sum(losses.loss(*pair, metric) for pair in chosen if pair[1] != KEEP):.4g}"
        rows.append(row)
    return _table(rows)


def _weights(layers: Sequence[Layer], again: set[str]) -> int:
    """A shared weight counts once."""
    return sum(prod(layer.weight) for layer in layers if layer.address not in again)


def _table(rows: list[dict[str, str]]) -> str:
    return str(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)) if rows else ""
