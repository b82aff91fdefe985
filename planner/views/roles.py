"""Tables by role: what a model spends where, and what a plan gives to whom. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bitplan.planner.choice.evidence import KEEP, twins_of
from bitplan.planner.choice.record import check_same_model
from bitplan.planner.graph.layers import ROLES, UNKNOWN, Layer, LayerGraph, from_json
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.texts import table
from bitplan.planner.units import show_bytes
from bitplan.plans.plan import Plan
from bitplan.sensitivity.table import LossTable


@dataclass(frozen=True)
class RoleOfModel:
    """What a model has in one role. weights: a shared one counts once; macs: multiply-adds of the whole run; share: of
    all layers' multiply-adds."""

    role: str
    layers: int
    weights: int
    macs: int
    share: float


@dataclass(frozen=True)
class RoleOfPlan:
    """What a plan gives to one role. bits: a weight, scales included, None where there are no weights of its own;
    losses: predicted, by metric."""

    role: str
    layers: int
    bits: float | None
    bytes: int
    losses: Mapping[str, float]


def by_role(graph: LayerGraph) -> dict[str, list[Layer]]:
    """The layers of each role that there is, in the order of ROLES; none for a graph that tells no roles."""
    found: dict[str, list[Layer]] = {role: [] for role in ROLES}
    for layer in graph.layers:
        if layer.role != UNKNOWN:
            found.setdefault(layer.role, []).append(layer)
    return {role: layers for role, layers in found.items() if layers}


def model_roles(graph: LayerGraph) -> tuple[RoleOfModel, ...]:
    """In the order of ROLES; none where no roles are told."""
    total = sum(layer.macs for layer in graph.layers) or 1
    again = twins_of(graph.tied)
    found = []
    for role, layers in by_role(graph).items():
        macs = sum(layer.macs for layer in layers)
        found.append(RoleOfModel(role, len(layers), _weights(layers, again), macs, macs / total))
    return tuple(found)


def plan_roles(plan: Plan, store: Profile) -> tuple[RoleOfPlan, ...]:
    """In the order of ROLES; none where the profile tells no roles. Raises UserError for a profile of another model."""
    check_same_model(plan, store)
    graph, losses = from_json(store.graph()), LossTable.of(store.measurements())
    size = {(cost.layer, cost.scheme): cost.bytes for cost in store.costs()}
    again, metrics = twins_of(graph.tied), tuple(store.families())
    found = []
    for role, layers in by_role(graph).items():
        chosen = [(layer.address, plan.schemes[layer.address]) for layer in layers]
        held = sum(size[pair] for pair in chosen if not (pair[0] in again and pair[1] == KEEP))
        weights = _weights(layers, again)
        sums = {name: sum(losses.loss(*pair, name) for pair in chosen if pair[1] != KEEP) for name in metrics}
        found.append(RoleOfPlan(role, len(layers), 8 * held / weights if weights else None, held, sums))
    return tuple(found)


def model_text(found: Sequence[RoleOfModel]) -> str:
    """A table: layers, weights, and their share of the multiply-adds."""
    return _table([
        {
            "role": each.role, "layers": str(each.layers), "weights": f"{each.weights:,}",
            "multiply-adds": f"{each.share:.1%}",
        }
        for each in found
    ])  # fmt: skip


def plan_text(found: Sequence[RoleOfPlan]) -> str:
    """A table: layers, bits a weight, bytes, and predicted losses."""
    return _table([
        {
            "role": each.role, "layers": str(each.layers),
            "bits a weight": "-" if each.bits is None else f"{each.bits:.2f}", "bytes": show_bytes(each.bytes),
        }
        | {metric: f"{loss:.4g}" for metric, loss in each.losses.items()}
        for each in found
    ])  # fmt: skip


def _weights(layers: Sequence[Layer], again: set[str]) -> int:
    """A shared weight counts once."""
    return sum(prod(layer.weight) for layer in layers if layer.address not in again)


def _table(rows: list[dict[str, str]]) -> str:
    return table(rows) if rows else ""
