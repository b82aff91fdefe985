"""From a profile to a problem for the solver, and from its solution to a plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from planner.errors import UserError
from plans.scheme import parse_scheme
from sensitivity.table import FAMILIES, OWN, LossTable
from solvers.problem import Budget, Problem, Tie

COSTS = ("bytes", "ms")
KEEP = "keep"  # the scheme that changes nothing
LEXICOGRAPHIC = "lexicographic:"


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


def formulate(evidence: Evidence, objective: Mapping[str, float], budgets: Sequence[Budget], real: bool) -> Problem:
    """The problem whose groups are layers and whose candidates are schemes.

    Columns: bytes, ms, each metric, and each family: the mean of `members_of` it, each in units of its own mean loss.
    A family of which nothing was measured has no column, and no say in the objective. Layers that share an input share
    an activation format, so that it is quantized once. real: simulated schemes are forbidden. Raises UserError, or
    MeasurementError for a profile that is not finished.
    """
    groups = groups_of(evidence)
    names = {group: _offered(evidence, layers) for group, layers in groups.items()}
    pairs = [(group, scheme) for group in groups for scheme in names[group]]
    columns: dict[str, np.ndarray] = {
        "bytes": np.array([_bytes(evidence, groups[g], s) for g, s in pairs], np.int64),
        "ms": np.array([sum(evidence.ms[layer, s] for layer in groups[g]) for g, s in pairs], float),
    }
    for metric in evidence.metrics:
        columns[metric] = np.array([sum(_loss(evidence, layer, s, metric) for layer in groups[g]) for g, s in pairs])
    for family in FAMILIES:
        if members := members_of(evidence, family):
            columns[family] = _mean_seen([columns[m] / scale_of(evidence, m) for m in members], pairs)
    allowed = np.array([not (real and any((a, s) in evidence.simulated for a in groups[g])) for g, s in pairs])
    return Problem(
        groups=tuple(groups), candidates=tuple(names.values()), columns=columns,
        objective=weighed(objective, columns),
        budgets=tuple(budgets), ties=_ties(evidence, groups, names), allowed=allowed,
    )  # fmt: skip


def weighed(objective: Mapping[str, float], columns: Mapping[str, object]) -> dict[str, float]:
    """Without the families of which nothing was measured. Raises UserError where nothing is left."""
    rest = {name: weight for name, weight in objective.items() if name in columns or name not in FAMILIES}
    if objective and not rest:
        raise UserError(f"the profile measured no {' and no '.join(objective)}; it has {', '.join(columns)}")
    return rest


def _mean_seen(losses: Sequence[np.ndarray], pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """The mean of the metrics that see a group at all: what acts outside of the denoiser leaves its output as it is,
    and would otherwise count for less than it does. losses: of each metric, one number a (group, scheme)."""
    _, inverse = np.unique([group for group, _ in pairs], return_inverse=True)
    seen = [np.bincount(inverse, one)[inverse] > 0 for one in losses]
    total = np.sum([np.where(sees, one, 0.0) for sees, one in zip(seen, losses, strict=True)], axis=0)
    return np.asarray(total / np.maximum(np.sum(seen, axis=0), 1))


def _offered(evidence: Evidence, layers: Sequence[str]) -> tuple[str, ...]:
    """The schemes that all layers of a group have."""
    return tuple(s for s in evidence.offered[layers[0]] if all(s in evidence.offered[layer] for layer in layers))


def _bytes(evidence: Evidence, layers: Sequence[str], scheme: str) -> int:
    """A shared float weight is held once; packed, each of its layers holds its own."""
    return evidence.size[layers[0], scheme] * (1 if scheme == KEEP else len(layers))


def _loss(evidence: Evidence, layer: str, scheme: str, metric: str) -> float:
    if scheme == KEEP:
        return 0.0
    if not evidence.z:
        return evidence.losses.loss(layer, scheme, metric)
    found = evidence.losses.measurement(layer, scheme, metric)
    if not math.isfinite(found.stderr):
        few = f"{metric} of {layer} at {scheme} has no standard error, from {found.count} samples"
        raise UserError(f"{few}; profile on more prompts, or leave --confidence out")
    return max(found.mean + evidence.z * found.stderr, 0.0)


def _ties(
    evidence: Evidence, groups: Mapping[str, tuple[str, ...]], names: Mapping[str, tuple[str, ...]]
) -> tuple[Tie, ...]:
    """One activation format for the groups of each shared input."""
    leader = {layer: group for group, layers in groups.items() for layer in layers}
    ties = []
    for family in evidence.shared:
        members = list(dict.fromkeys(leader[layer] for layer in family if layer in leader))
        if len(members) > 1:
            labels = {m: tuple(str(parse_scheme(s).activation) for s in names[m]) for m in members}
            ties.append(Tie(labels))
    return tuple(ties)


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


def order_of(objective: str) -> tuple[str, ...]:
    """The columns of `lexicographic:alignment,quality`, the most important first; none for other objectives."""
    if not objective.startswith(LEXICOGRAPHIC):
        return ()
    return tuple(name.strip() for name in objective.removeprefix(LEXICOGRAPHIC).split(","))


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


def weights_of(objective: str) -> dict[str, float]:
    """`quality`, `alignment`, `both`, or `quality=1,alignment=0.5`: column -> weight; of a lexicographic order, its
    last column. Raises UserError."""
    if objective == "both":
        return dict.fromkeys(FAMILIES, 1.0)
    if order := order_of(objective):
        return {order[-1]: 1.0}
    weights = {}
    for part in objective.split(","):
        name, _, value = part.partition("=")
        try:
            weights[name.strip()] = float(value) if value else 1.0
        except ValueError:
            raise UserError(f"objective {part!r} is no weight; write quality, alignment, both or quality=1") from None
    if bad := [name for name, weight in weights.items() if not 0 <= weight < float("inf")]:
        raise UserError(f"the weight of {bad[0]} is {weights[bad[0]]}; give a finite number of at least 0")
    return weights
