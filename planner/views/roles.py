"""Tables by role: the layers and work of a model, and the bits and losses of a plan. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bitplan.planner.choice.evidence import KEEP, twins_of
from bitplan.planner.choice.record import check_same_model, evidence_of
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import ROLES, UNKNOWN, Layer, LayerGraph, from_json
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.texts import table
from bitplan.planner.units import show_bytes
from bitplan.plans.plan import Plan
from bitplan.sensitivity.table import LossTable


@dataclass(frozen=True)
class RoleOfModel:
    """The layers of a model that have one role.

    Attributes:
        role: a name of `ROLES`.
        layers: number of layers.
        weights: number of weights; a shared weight counts once.
        macs: multiply-adds of the whole run.
        share: share of all layers' multiply-adds.
    """

    role: str
    layers: int
    weights: int
    macs: int
    share: float


@dataclass(frozen=True)
class RoleOfPlan:
    """The layers of a plan that have one role.

    Attributes:
        role: a name of `ROLES`.
        layers: number of layers.
        bits: mean bits of a weight with its scales; None where all weights belong to other roles.
        bytes: size of the weights.
        losses: metric -> predicted loss.
    """

    role: str
    layers: int
    bits: float | None
    bytes: int
    losses: Mapping[str, float]


def by_role(graph: LayerGraph) -> dict[str, list[Layer]]:
    """Returns the layers of each role in the order of ROLES; empty for a graph without roles."""
    members: dict[str, list[Layer]] = {role: [] for role in ROLES}
    for layer in graph.layers:
        if layer.role != UNKNOWN:
            members.setdefault(layer.role, []).append(layer)
    return {role: layers for role, layers in members.items() if layers}


def model_roles(graph: LayerGraph) -> tuple[RoleOfModel, ...]:
    """Returns one row for each role in the order of ROLES; none for a graph without roles."""
    total = sum(layer.macs for layer in graph.layers) or 1
    duplicates = twins_of(graph.tied)
    rows = []
    for role, layers in by_role(graph).items():
        macs = sum(layer.macs for layer in layers)
        rows.append(RoleOfModel(role, len(layers), _weights(layers, duplicates), macs, macs / total))
    return tuple(rows)


def plan_roles(plan: Plan, store: Profile) -> tuple[RoleOfPlan, ...]:
    """Returns one row for each role in the order of ROLES; none for a profile without roles.

    Raises UserError for a profile of another model.
    """
    check_same_model(plan, store)
    graph, losses = from_json(store.graph()), LossTable.of(store.measurements())
    size = evidence_of(plan, store).size
    if unknown := [pair for pair in plan.schemes.items() if pair not in size]:
        raise UserError(f"{unknown[0][0]} takes {unknown[0][1]}, which {store.path} did not measure; give the plan's "
                        "own profile")  # fmt: skip
    duplicates, metrics = twins_of(graph.tied), tuple(store.families())
    rows = []
    for role, layers in by_role(graph).items():
        chosen = [(layer.address, plan.schemes[layer.address]) for layer in layers]
        stored = sum(size[pair] for pair in chosen if not (pair[0] in duplicates and pair[1] == KEEP))
        weights = _weights(layers, duplicates)
        sums = {name: sum(losses.loss(*pair, name) for pair in chosen if pair[1] != KEEP) for name in metrics}
        rows.append(RoleOfPlan(role, len(layers), 8 * stored / weights if weights else None, stored, sums))
    return tuple(rows)


def model_text(rows: Sequence[RoleOfModel]) -> str:
    """Returns a table of layers, weights and shares of the multiply-adds."""
    return _table([
        {
            "role": each.role, "layers": str(each.layers), "weights": f"{each.weights:,}",
            "multiply-adds": f"{each.share:.1%}",
        }
        for each in rows
    ])  # fmt: skip


def plan_text(rows: Sequence[RoleOfPlan]) -> str:
    """Returns a table of layers, bits a weight, bytes and predicted losses."""
    return _table([
        {
            "role": each.role, "layers": str(each.layers),
            "bits a weight": "-" if each.bits is None else f"{each.bits:.2f}", "bytes": show_bytes(each.bytes),
        }
        | {metric: f"{loss:.4g}" for metric, loss in each.losses.items()}
        for each in rows
    ])  # fmt: skip


def _weights(layers: Sequence[Layer], duplicates: set[str]) -> int:
    """Returns the number of weights; a shared weight counts once."""
    return sum(prod(layer.weight) for layer in layers if layer.address not in duplicates)


def _table(rows: list[dict[str, str]]) -> str:
    return table(rows) if rows else ""
