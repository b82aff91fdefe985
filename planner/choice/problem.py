"""Formulates the problem for the solver from the contents of a profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bitplan.planner.choice.evidence import KEEP, Evidence, groups_of, members_of, scale_of
from bitplan.planner.errors import UserError
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.table import FAMILIES
from bitplan.solvers.problem import Budget, Problem, Tie


def formulate(evidence: Evidence, objective: Mapping[str, float], budgets: Sequence[Budget], real: bool) -> Problem:
    """Return the problem whose groups are layers with one weight and whose candidates are schemes.

    The columns are bytes, ms, each metric, and each family: the mean of its `members_of`, each in units of its own mean
    loss. A family without measurements has no column and is left out of the objective. Layers with one input get one
    activation format, so that the input is quantized once. real: forbid simulated schemes. Raises UserError, or
    MeasurementError for a profile that is not finished.
    """
    groups = groups_of(evidence)
    names = {group: _offered(evidence, layers) for group, layers in groups.items()}
    pairs = [(group, scheme) for group in groups for scheme in names[group]]
    columns: dict[str, np.ndarray] = {
        "bytes": [_bytes(evidence, groups[g], s) for g, s in pairs],  # type: ignore[dict-item]
        "ms": np.array([sum(evidence.ms[layer, s] for layer in groups[g]) for g, s in pairs], float),
    }
    for metric in evidence.metrics:
        columns[metric] = np.array([sum(_loss(evidence, layer, s, metric) for layer in groups[g]) for g, s in pairs])
    for family in FAMILIES:
        if members := members_of(evidence, family):
            columns[family] = _mean_of_affected([columns[m] / scale_of(evidence, m) for m in members], pairs)
    allowed = np.array([not (real and any((a, s) in evidence.simulated for a in groups[g])) for g, s in pairs])
    return Problem(
        groups=tuple(groups), candidates=tuple(names.values()), columns=columns,
        objective=weighed(objective, columns),
        budgets=tuple(budgets), ties=_ties(evidence, groups, names), allowed=allowed,
    )  # fmt: skip


def in_one_unit(evidence: Evidence, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights of the columns themselves for weights that count each column in units of its mean.

    The mean is over the measured (layer, scheme). Families are in this unit already; metrics and costs are divided by
    it. The weight of a single column is not changed, because its unit does not matter. Plans record the result.
    """
    if sum(weight > 0 for weight in weights.values()) < 2:
        return dict(weights)
    return {name: weight / _unit_of(evidence, name) for name, weight in weights.items()}


def _unit_of(evidence: Evidence, column: str) -> float:
    if column in evidence.metrics:
        return scale_of(evidence, column)
    costs = {"bytes": evidence.size, "ms": evidence.ms}.get(column, {})
    changed = [value for (_, scheme), value in costs.items() if scheme != KEEP]
    return (float(np.mean(changed)) if changed else 0.0) or 1.0


def weighed(objective: Mapping[str, float], columns: Mapping[str, object]) -> dict[str, float]:
    """Return the objective without families that were not measured. Raises UserError if no weight above 0 is left."""
    rest = {name: weight for name, weight in objective.items() if name in columns or name not in FAMILIES}
    if (missing := [name for name in objective if name not in rest]) and not any(rest.values()):
        raise UserError(f"the profile measured no {' and no '.join(missing)}; it has {', '.join(columns)}")
    return rest


def _mean_of_affected(losses: Sequence[np.ndarray], pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return the mean over the metrics that a group affects at all.

    A layer outside the denoiser does not change the denoiser's output; zeros of such metrics would lower its mean.
    losses: for each metric, one number for each (group, scheme).
    """
    _, inverse = np.unique([group for group, _ in pairs], return_inverse=True)
    affects = [np.bincount(inverse, one)[inverse] > 0 for one in losses]
    total = np.sum([np.where(mask, one, 0.0) for mask, one in zip(affects, losses, strict=True)], axis=0)
    return np.asarray(total / np.maximum(np.sum(affects, axis=0), 1))


def _offered(evidence: Evidence, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the schemes that all layers of a group have."""
    return tuple(s for s in evidence.offered[layers[0]] if all(s in evidence.offered[layer] for layer in layers))


def _bytes(evidence: Evidence, layers: Sequence[str], scheme: str) -> int:
    """Return the bytes of a group: a shared float weight is stored once, a packed one in each of its layers."""
    return evidence.size[layers[0], scheme] * (1 if scheme == KEEP else len(layers))


def _loss(evidence: Evidence, layer: str, scheme: str, metric: str) -> float:
    if scheme == KEEP:
        return 0.0
    if not evidence.z:
        return evidence.losses.loss(layer, scheme, metric)
    measurement = evidence.losses.measurement(layer, scheme, metric)
    if not math.isfinite(measurement.stderr):
        few = f"{metric} of {layer} at {scheme} has no standard error, from {measurement.count} samples"
        raise UserError(f"{few}; profile on more prompts, or `bitplan solve` without --confidence")
    return max(measurement.mean + evidence.z * measurement.stderr, 0.0)


def _ties(
    evidence: Evidence, groups: Mapping[str, tuple[str, ...]], names: Mapping[str, tuple[str, ...]]
) -> tuple[Tie, ...]:
    """Return one tie for each shared input: its groups take one activation format."""
    leader = {layer: group for group, layers in groups.items() for layer in layers}
    ties = []
    for family in evidence.shared:
        members = list(dict.fromkeys(leader[layer] for layer in family if layer in leader))
        if len(members) > 1:
            labels = {m: tuple(parse_scheme(s).shared_side for s in names[m]) for m in members}
            ties.append(Tie(labels))
    return tuple(ties)
