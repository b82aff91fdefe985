"""What a profile knows, as arrays and tables from which problems are built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from statistics import NormalDist

import numpy as np

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import from_json
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.units import COSTS
from bitplan.sensitivity.table import FAMILIES, OWN, LossTable

KEEP = "keep"  # the scheme that changes nothing


@dataclass(frozen=True)
class Evidence:
    """All that a profile says of the choices, in graph order.

    offered: layer -> scheme texts; size, ms: (layer, scheme) -> cost; losses: the measurements; metrics: name ->
    family; shared: layers that read one input; tied: layers of one weight; simulated: (layer, scheme) without a kernel;
    weights: how many there are; z: how many of its standard errors each loss counts above its mean (see `z_of`);
    roles: layer -> role, empty where the profile tells none; partly: metrics that are not measured everywhere, and so
    make no column -> in how many places.
    """

    offered: Mapping[str, tuple[str, ...]]
    size: Mapping[tuple[str, str], int]
    ms: Mapping[tuple[str, str], float]
    losses: LossTable
    metrics: Mapping[str, str]
    shared: tuple[tuple[str, ...], ...]
    tied: tuple[tuple[str, ...], ...]
    simulated: frozenset[tuple[str, str]]
    weights: int
    z: float = 0.0
    roles: Mapping[str, str] = field(default_factory=dict)
    partly: Mapping[str, int] = field(default_factory=dict)


def twins_of(tied: Sequence[Sequence[str]]) -> set[str]:
    """All but the first layer of each shared weight."""
    return {layer for family in tied for layer in family[1:]}


def groups_of(evidence: Evidence) -> dict[str, tuple[str, ...]]:
    """Group -> its layers: those of one weight together under the first one's name, each other layer alone."""
    leader = {layer: family[0] for family in evidence.tied for layer in family}
    groups: dict[str, tuple[str, ...]] = {}
    for layer in evidence.offered:
        first = leader.get(layer, layer)
        groups[first] = (*groups.get(first, ()), layer)
    return groups


def scale_of(evidence: Evidence, metric: str) -> float:
    """The mean loss of a metric over all that was measured: what turns metrics of one family into one number."""
    losses = [max(m.mean, 0.0) for m in evidence.losses.measurements.values() if m.metric == metric]
    mean = float(np.mean(losses)) if losses else 0.0
    return mean or 1.0


def members_of(evidence: Evidence, family: str) -> list[str]:
    """The metrics that stand for a family: those whose losses are never negative, or all where there are no such.

    A signed loss is mostly what a few prompts happen to gain or lose. A solver that adds it up looks for the lucky
    candidates: on `scenes`, plans so chosen had twice the noise and the drift of others on other prompts, in the median
    (`benchmarks/signed_metrics.py`). It can still be named in objectives and caps.
    """
    members = [metric for metric, its in evidence.metrics.items() if its == family]
    signed = {m.metric for m in evidence.losses.measurements.values() if m.mean < 0}
    return [metric for metric in members if metric not in signed] or members


def z_of(confidence: float | None) -> float:
    """Standard errors above the mean that a normal error stays below with that confidence; 0 for None.

    Each loss is bounded for itself, and a sum of such bounds is exceeded far less often than one of them: what is
    planned with them is on the safe side. Raises UserError.
    """
    if confidence is None:
        return 0.0
    if not 0.5 <= confidence < 1:
        raise UserError(f"--confidence {confidence:g} is no one-sided confidence; give at least 0.5, under 1")
    return NormalDist().inv_cdf(confidence)


def shown_columns(evidence: Evidence) -> tuple[str, ...]:
    """What tables show of a plan: costs, families, and each metric of the user's own."""
    return (*COSTS, *FAMILIES, *(metric for metric, family in evidence.metrics.items() if family == OWN))


def check_known(evidence: Evidence, columns: Iterable[str]) -> None:
    """Raises UserError for a metric that the profile holds for some of the candidates alone."""
    for name in columns:
        if name in evidence.partly:
            pairs = sum(scheme != KEEP for _, scheme in evidence.size)
            raise UserError(f"{name} was measured for {evidence.partly[name]} of {pairs} (layer, scheme): it has no "
                            "probe; profile with --method exhaustive to plan by it")  # fmt: skip


def read_evidence(store: Profile, confidence: float | None = None) -> Evidence:
    """The choices and their numbers. Raises UserError when the profile is not finished, or for a confidence that is
    none."""
    costs, graph = store.costs(), from_json(store.graph())
    offered: dict[str, tuple[str, ...]] = {}
    for cost in costs:
        offered[cost.layer] = (*offered.get(cost.layer, ()), cost.scheme)
    wanted = {(cost.layer, cost.scheme) for cost in costs if cost.scheme != KEEP}
    missing = len(wanted - store.measured())
    if missing or set(offered) != set(store.layers()):
        raise UserError(f"{store.path}: {missing or 'all'} of {len(wanted)} measurements are missing; "
                        "run the same `bitplan profile` command again to finish it")  # fmt: skip
    table, families = LossTable.of(store.measurements()), store.families()
    partly = _partly(table, families, wanted)
    return Evidence(
        offered=offered,
        size={(c.layer, c.scheme): c.bytes for c in costs},
        ms={(c.layer, c.scheme): c.ms or 0.0 for c in costs},
        losses=table,
        metrics={metric: family for metric, family in families.items() if metric not in partly},
        shared=graph.shared_inputs,
        tied=graph.tied,
        simulated=frozenset((c.layer, c.scheme) for c in costs if c.simulated),
        weights=sum(prod(layer.weight) for layer in graph.layers if layer.address not in twins_of(graph.tied)),
        z=z_of(confidence),
        roles={layer.address: layer.role for layer in graph.layers},
        partly=partly,
    )


def _partly(table: LossTable, families: Mapping[str, str], wanted: set[tuple[str, str]]) -> dict[str, int]:
    """Metrics that were measured for some of the pairs alone: beside probes, one that has none."""
    counts = Counter(key[2] for key in table.measurements if key[:2] in wanted)
    return {metric: counts[metric] for metric in families if counts[metric] < len(wanted)}


def whole(evidence: Evidence) -> dict[str, float]:
    """Bytes and milliseconds of all planned layers in full precision: what per cent are of."""
    groups = groups_of(evidence).values()
    size = sum(evidence.size[layers[0], KEEP] for layers in groups)  # a shared float weight is held once
    ms = np.array([sum(evidence.ms[layer, KEEP] for layer in layers) for layers in groups]).sum().item()
    return {"bytes": size, "ms": ms}
