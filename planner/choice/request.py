"""Rules on several layers at once: `role:in` in place of a layer. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import ROLES, UNKNOWN
from bitplan.sensitivity.table import FAMILIES

LEXICOGRAPHIC = "lexicographic:"


def order_of(objective: str) -> tuple[str, ...]:
    """The columns of `lexicographic:alignment,quality`, the most important first; none for other objectives."""
    if not objective.startswith(LEXICOGRAPHIC):
        return ()
    return tuple(name.strip() for name in objective.removeprefix(LEXICOGRAPHIC).split(","))


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


@dataclass(frozen=True)
class Request:
    """What is asked of `solve`; the words are those of `bitplan.planner.verbs.choose.solve`. objective: column ->
    weight; order: of
    a lexicographic objective, else empty; pins: layer or `role:NAME` -> scheme; real: only what a kernel runs."""

    objective: Mapping[str, float]
    order: tuple[str, ...] = ()
    memory: str | None = None
    latency: str | None = None
    bits: float | None = None
    caps: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    real: bool = True
    confidence: float | None = None
    slack: float = 0.0


def request_of(
    objective: str, memory: str | None, latency: str | None, bits: float | None, caps: Mapping[str, str] | None,
    pins: Mapping[str, str] | None, real: bool, confidence: float | None, slack: float,
) -> Request:  # fmt: skip
    """The request in the words of the verbs. Raises UserError."""
    weights, order = weights_of(objective), order_of(objective)
    return Request(weights, order, memory, latency, bits, dict(caps or {}), dict(pins or {}), real, confidence, slack)


PREFIX = "role:"


def resolve(
    pins: Mapping[str, str], roles: Mapping[str, str], groups: Mapping[str, Sequence[str]]
) -> dict[str, str]:  # fmt: skip
    """Layer -> scheme, of pins whose keys are layers or `role:NAME`, which stands for all layers of the role.

    A layer's own pin beats its role's. roles: by layer; groups: layers of one weight, by the first, which is pinned for
    all. Raises UserError for a role that no layer has, and where one weight has two roles with different schemes.
    """
    exact = {name: scheme for name, scheme in pins.items() if not name.startswith(PREFIX)}
    wanted = {name.removeprefix(PREFIX): scheme for name, scheme in pins.items() if name.startswith(PREFIX)}
    for role in wanted:
        _check_role(role, roles)
    found: dict[str, str] = {}
    for group, layers in groups.items():
        if exact.keys() & {group, *layers}:
            continue
        schemes = {roles[layer]: wanted[roles[layer]] for layer in layers if roles.get(layer) in wanted}
        if len(set(schemes.values())) > 1:
            said = " and ".join(f"{PREFIX}{role} = {scheme}" for role, scheme in schemes.items())
            raise UserError(f"{group} and what shares its weight are pinned twice, {said}; pin {group} itself")
        if schemes:
            found[group] = next(iter(schemes.values()))
    return exact | found


def _check_role(role: str, roles: Mapping[str, str]) -> None:
    counts = Counter(roles.values())
    if set(counts) <= {UNKNOWN}:
        raise UserError(f"the profile tells no roles, so {PREFIX}{role} is unknown; profile the model again")
    if role not in counts:
        has = ", ".join(f"{name} ({counts[name]})" for name in ROLES if name in counts)
        raise UserError(f"no layer has the role {role!r}; the profile has {has}")
