"""The contents of a profile in the form from which problems are built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from statistics import NormalDist

import numpy as np

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import Layer, from_json
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.profiles.timings import steady_ms
from bitplan.planner.targets import target_named
from bitplan.planner.targets.base import Target, why
from bitplan.planner.units import COSTS
from bitplan.plans.dtypes import FLOAT32, itemsize_of
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.table import FAMILIES, OWN, LossTable

KEEP = "keep"  # the scheme that changes nothing


@dataclass(frozen=True)
class Evidence:
    """The candidates of a profile with their costs and losses, in graph order.

    Attributes:
        offered: layer -> its schemes, without those that a target cannot load.
        size: (layer, scheme) -> bytes; of what a target can load, as the target holds it.
        ms: (layer, scheme) -> milliseconds of one run, of `timings.steady_ms`.
        losses: the measurements.
        metrics: metric -> family, for the metrics measured for every candidate.
        shared: groups of layers that read one input.
        tied: groups of layers with one weight.
        simulated: the (layer, scheme) that no kernel runs.
        weights: the number of weights.
        z: how many standard errors above its mean each loss counts (see `z_of`).
        roles: layer -> role; empty if the profile has none.
        partly: metric -> number of measured candidates, for metrics that are not measured for all.
        target: the tool that plans are made for, a name of `TARGETS`; None for BitPlan itself.
        ruled_out: (layer, scheme) -> why the target cannot load it in this layer or one of the same weight.
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
    target: str | None = None
    ruled_out: Mapping[tuple[str, str], str] = field(default_factory=dict)


def twins_of(tied: Sequence[Sequence[str]]) -> set[str]:
    """Return all but the first layer of each shared weight."""
    return {layer for family in tied for layer in family[1:]}


def groups_of(evidence: Evidence) -> dict[str, tuple[str, ...]]:
    """Return group -> layers: layers of one weight form a group named after the first; any other layer is a group."""
    leader = {layer: family[0] for family in evidence.tied for layer in family}
    groups: dict[str, tuple[str, ...]] = {}
    for layer in evidence.offered:
        first = leader.get(layer, layer)
        groups[first] = (*groups.get(first, ()), layer)
    return groups


def scale_of(evidence: Evidence, metric: str) -> float:
    """Return the mean loss of a metric over all measurements, the unit in which metrics of one family are averaged."""
    losses = [max(m.mean, 0.0) for m in evidence.losses.measurements.values() if m.metric == metric]
    mean = float(np.mean(losses)) if losses else 0.0
    return mean or 1.0


def members_of(evidence: Evidence, family: str) -> list[str]:
    """Return the metrics that form a family's column: those without negative losses, or all if there are none.

    A signed loss is mostly noise of a few prompts, and a solver that minimises its sum selects lucky candidates: on
    `scenes`, such plans had twice the noise and the drift of others on other prompts, in the median
    (`benchmarks/signed_metrics.py`). Objectives and caps can still name signed metrics.
    """
    members = [metric for metric, own in evidence.metrics.items() if own == family]
    signed = {m.metric for m in evidence.losses.measurements.values() if m.mean < 0}
    return [metric for metric in members if metric not in signed] or members


def z_of(confidence: float | None) -> float:
    """Return the one-sided normal quantile of the confidence, in standard errors; 0 for None.

    Each loss gets its own bound. A sum of such bounds is exceeded far less often than one of them, so plans are
    conservative. Raises UserError.
    """
    if confidence is None:
        return 0.0
    if not 0.5 <= confidence < 1:
        raise UserError(f"--confidence {confidence:g} is not a one-sided confidence; give at least 0.5 and less than 1")
    return NormalDist().inv_cdf(confidence)


def shown_columns(evidence: Evidence) -> tuple[str, ...]:
    """Return the columns that tables of plans show: costs, families, and the user's own metrics."""
    return (*COSTS, *FAMILIES, *(metric for metric, family in evidence.metrics.items() if family == OWN))


def read_evidence(store: Profile, confidence: float | None = None, target: str | None = None) -> Evidence:
    """Read the candidates of a profile, for a target if one is named.

    Raises UserError if the profile is not finished, for an invalid confidence, and for a target that does not exist or
    can load none of the schemes.
    """
    evidence = _read(store, confidence)
    return evidence if target is None else _for_target(evidence, target, store)


def _read(store: Profile, confidence: float | None) -> Evidence:
    """Return the candidates of a profile."""
    costs, graph = store.costs(), from_json(store.graph())
    offered: dict[str, tuple[str, ...]] = {}
    for cost in costs:
        offered[cost.layer] = (*offered.get(cost.layer, ()), cost.scheme)
    pairs = {(cost.layer, cost.scheme) for cost in costs if cost.scheme != KEEP}
    missing = len(pairs - store.measured())
    if missing or set(offered) != set(store.layers()):
        raise UserError(f"{store.path}: {missing or 'all'} of {len(pairs)} measurements are missing; "
                        "run the same `bitplan profile` command again to finish it")  # fmt: skip
    table, families = LossTable.of(store.measurements()), store.families()
    partly = _partly(table, families, pairs)
    return Evidence(
        offered=offered,
        size={(c.layer, c.scheme): c.bytes for c in costs},
        ms={(c.layer, c.scheme): ms or 0.0 for c, ms in zip(costs, steady_ms(costs), strict=True)},
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


def _for_target(evidence: Evidence, name: str, store: Profile) -> Evidence:
    """Return the evidence without what the target cannot load, and with the bytes in which it holds the rest."""
    target, header, layers = target_named(name), store.header(), from_json(store.graph()).by_address
    if "source" in header:
        raise UserError(f"{store.path} was imported and does not hold the kinds of its layers, which determine what "
                        f"{name} can load; leave --target out")  # fmt: skip
    ruled_out = _ruled_out(evidence, target, layers)
    if len(ruled_out) == sum(scheme != KEEP for _, scheme in evidence.size):
        schemes = ", ".join(dict.fromkeys(scheme for _, scheme in ruled_out)) or KEEP
        raise UserError(f"{name} can load no scheme of {store.path}, which has {schemes}; profile with --target {name}"
                        f", which measures {', '.join(target.menu)}")  # fmt: skip
    size, itemsize = dict(evidence.size), itemsize_of(header["model"].get("dtype", FLOAT32))
    for layer, scheme in (size.keys() - ruled_out.keys()) if target.stored else ():
        size[layer, scheme] = target.stored(parse_scheme(scheme), layers[layer], itemsize)  # type: ignore[misc]
    offered = {
        layer: tuple(scheme for scheme in names if (layer, scheme) not in ruled_out)
        for layer, names in evidence.offered.items()
    }
    return replace(evidence, offered=offered, size=size, target=name, ruled_out=ruled_out)


def _ruled_out(evidence: Evidence, target: Target, layers: Mapping[str, Layer]) -> dict[tuple[str, str], str]:
    """Return (layer, scheme) -> why the target cannot load it in this layer or one of the same weight."""
    reasons: dict[tuple[str, str], str] = {}
    for members in groups_of(evidence).values():
        for layer in members:
            for scheme in evidence.offered[layer]:
                reason = why(target, parse_scheme(scheme), layers[layer])
                reasons |= {(one, scheme): reason for one in members if reason and scheme in evidence.offered[one]}
    return reasons


def measured(evidence: Evidence) -> Evidence:
    """Return the evidence with all schemes that were measured, also those that a target cannot load."""
    offered: dict[str, tuple[str, ...]] = {}
    for layer, scheme in evidence.size:
        offered[layer] = (*offered.get(layer, ()), scheme)
    return replace(evidence, offered=offered)


def _partly(table: LossTable, families: Mapping[str, str], pairs: set[tuple[str, str]]) -> dict[str, int]:
    """Return metric -> number of pairs, for metrics measured for some pairs only, such as one without a probe."""
    counts = Counter(key[2] for key in table.measurements if key[:2] in pairs)
    return {metric: counts[metric] for metric in families if counts[metric] < len(pairs)}


def whole(evidence: Evidence) -> dict[str, float]:
    """Return the bytes and milliseconds of all planned layers in full precision, the base of percentages."""
    groups = groups_of(evidence).values()
    size = sum(evidence.size[layers[0], KEEP] for layers in groups)  # a shared float weight is held once
    ms = np.array([sum(evidence.ms[layer, KEEP] for layer in layers) for layers in groups]).sum().item()
    return {"bytes": size, "ms": ms}
