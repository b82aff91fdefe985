"""The request for a plan: budgets, objective and conditions, among them pins of several layers, such as `role:in`.

Imports no torch.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import ROLES, UNKNOWN
from bitplan.planner.graph.naming import layers_named
from bitplan.planner.targets import target_named
from bitplan.planner.units import parse_number
from bitplan.sensitivity.table import FAMILIES

LEXICOGRAPHIC = "lexicographic:"
KERNELS = ("int", "fake")
BUDGETS = ("memory", "latency", "bits")  # fields of `Request` that bound a cost
REPEATED = {"caps": "cap", "pins": "pin"}  # fields of `Request` with several values -> the option for one value


def order_of(objective: str) -> tuple[str, ...]:
    """Return the columns of `lexicographic:alignment,quality`, the most important first; empty for other objectives."""
    if not objective.startswith(LEXICOGRAPHIC):
        return ()
    return tuple(name.strip() for name in objective.removeprefix(LEXICOGRAPHIC).split(","))


def weights_of(objective: str) -> dict[str, float]:
    """Parse an objective and return column -> weight; a lexicographic one gives its last column the weight 1.

    Other objectives are `quality`, `alignment`, `both`, or weights, such as `quality=1,alignment=0.5`.
    Raises UserError for a column that is missing or named twice, for a weight that is not a finite number of at least
    0 or has no effect beside the largest one, and where every weight is 0.
    """
    if objective == "both":
        return dict.fromkeys(FAMILIES, 1.0)
    if order := order_of(objective):
        _check_columns(objective, order)
        return {order[-1]: 1.0}
    parts = [part.partition("=") for part in objective.split(",")]
    _check_columns(objective, [name.strip() for name, _, _ in parts])
    weights = {name.strip(): _weight(name.strip(), value) if equals else 1.0 for name, equals, value in parts}
    if bad := [name for name, weight in weights.items() if not 0 <= weight < float("inf")]:
        raise UserError(f"the weight of {bad[0]} is {weights[bad[0]]}; give a finite number of at least 0")
    if not any(weights.values()):
        raise UserError(f"the objective {objective} has no weight above 0, so that every plan would be best; give one, "
                        f"such as {next(iter(weights))}=1")  # fmt: skip
    most = max(weights, key=lambda name: weights[name])
    if lost := [name for name, weight in weights.items() if 0 < weight < sys.float_info.epsilon * weights[most]]:
        raise UserError(f"the weight {weights[lost[0]]:g} of {lost[0]} has no effect beside {weights[most]:g} of "
                        f"{most}; give 0, a larger weight, or {LEXICOGRAPHIC}{most},{lost[0]}")  # fmt: skip
    return weights


def _weight(name: str, value: str) -> float:
    weight = parse_number(value, f"the weight of {name}")
    if weight is None:
        raise UserError(f"objective '{name}={value}' is not a weight; write quality, alignment, both or quality=1")
    return weight


def _check_columns(objective: str, names: Sequence[str]) -> None:
    """Raise UserError for an empty name, and for one that is given twice."""
    if not all(names):
        raise UserError(f"the objective {objective!r} has a loss without a name; write for example quality=1,nsr=0.5")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"the objective {objective} names {twice[0]} twice; name each once")


def check_kernels(kernels: str) -> None:
    """Raise UserError for a name that is not in `KERNELS`."""
    if kernels not in KERNELS:
        raise UserError(f"there are no {kernels!r} kernels; choose {' or '.join(KERNELS)}")


@dataclass(frozen=True)
class Request:
    """The conditions and the objective of a plan. Verbs, commands and the explorer use these fields and defaults.

    Raises UserError for an objective, kernels or a target that do not exist.

    Attributes:
        memory: upper bound on the bytes of the weights: a share of full precision (`35%`) or an amount with its unit.
        latency: upper bound on the time of the layers: a share of full precision or an amount with its unit.
        bits: upper bound on the mean number of bits per weight.
        caps: column -> upper bound on its sum: a number, or a scheme whose uniform plan sets the bound.
        objective: `quality`, `alignment`, `both`, weights, or `lexicographic:alignment,quality`.
        slack: share by which a later stage of a lexicographic objective may worsen an earlier one.
        pins: layer, block, pattern or `role:NAME` -> scheme.
        kernels: `int` allows only schemes that a real kernel runs; `fake` allows every scheme.
        confidence: confidence of the upper bounds that replace the mean losses; None for mean losses.
        target: the tool that the plan is made for: only schemes that it can load, in bytes as it holds them; None for
            BitPlan itself.
    """

    memory: str | None = None
    latency: str | None = None
    bits: float | None = None
    caps: Mapping[str, str] = field(default_factory=dict)
    objective: str = "both"
    slack: float = 0.0
    pins: Mapping[str, str] = field(default_factory=dict)
    kernels: str = KERNELS[0]
    confidence: float | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        weights_of(self.objective)
        check_kernels(self.kernels)
        if self.target is not None:
            target_named(self.target)

    @property
    def weights(self) -> dict[str, float]:
        """Column -> weight in the objective; for a lexicographic objective, its last column -> 1."""
        return weights_of(self.objective)

    @property
    def order(self) -> tuple[str, ...]:
        """The columns of a lexicographic objective, the most important first; empty for other objectives."""
        return order_of(self.objective)

    @property
    def real(self) -> bool:
        """Whether only schemes that a real kernel runs are allowed."""
        return self.kernels == "int"

    def to_json(self) -> dict[str, Any]:
        """The request as `sweep.json` records it."""
        target = {} if self.target is None else {"target": self.target}  # as sweeps were recorded before
        return target | {
            "objective": self.weights, "order": self.order, "memory": self.memory, "latency": self.latency,
            "bits": self.bits, "caps": dict(self.caps), "pins": dict(self.pins), "real": self.real,
            "confidence": self.confidence, "slack": self.slack,
        }  # fmt: skip


def options_of(request: Request) -> list[str]:
    """Return the request as options of `bitplan solve`; options at their default are omitted."""
    options: list[str] = []
    for each in fields(Request):
        value = getattr(request, each.name)
        if isinstance(value, Mapping):
            for name, text in value.items():
                keeps = each.name == "pins" and text == "keep"
                options += ["--keep", name] if keeps else [f"--{REPEATED[each.name]}", f"{name}={text}"]
        elif value is not None and value != each.default:
            options += [f"--{each.name}", str(value)]
    return options


PREFIX = "role:"


def resolve(
    pins: Mapping[str, str], roles: Mapping[str, str], groups: Mapping[str, Sequence[str]]
) -> dict[str, str]:  # fmt: skip
    """Return group -> scheme for pins whose keys are layers, or stand for several layers as `resolved_names` says.

    A pin of a layer takes precedence over one that stands for several.

    Args:
        pins: layer, block, pattern or `role:NAME` -> scheme.
        roles: layer -> role.
        groups: group -> the layers that share one weight; the pin of a group holds for all of them.

    Raises:
        UserError: a name stands for no layer, or one weight has two different schemes.
    """
    found = resolved_names(pins, roles, groups)
    chosen: dict[str, str] = {}
    for exact in (True, False):
        of_layer = {name: own for name, own in found.items() if (own == (name,)) == exact}
        for group, layers in groups.items():
            schemes = {name: pins[name] for name, own in of_layer.items() if not set(own).isdisjoint(layers)}
            if schemes and group not in chosen:
                chosen[group] = _only_scheme(group, layers, schemes)
    return chosen


def resolved_names(
    names: Iterable[str], roles: Mapping[str, str], groups: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Return name -> the layers that it stands for: those of a role for `role:NAME`, else as `layers_named` says.

    Raises UserError for a name that stands for no layer.
    """
    layers = [layer for members in groups.values() for layer in members]
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        if name.startswith(PREFIX) and name not in layers:
            _check_role(name.removeprefix(PREFIX), roles)
            found[name] = tuple(layer for layer in layers if roles.get(layer) == name.removeprefix(PREFIX))
        else:
            found |= layers_named([name], layers)
    return found


def _only_scheme(group: str, layers: Sequence[str], schemes: Mapping[str, str]) -> str:
    """Return the scheme on which all pins of a group agree; `schemes` is the pin's name -> scheme."""
    if len(set(schemes.values())) > 1:
        conflict = " and ".join(f"{name} = {scheme}" for name, scheme in schemes.items())
        what = f"{group} is" if len(layers) == 1 else f"{group} and the layers that share its weight are"
        raise UserError(f"{what} pinned twice, {conflict}; pin {group} itself")
    return next(iter(schemes.values()))


def _check_role(role: str, roles: Mapping[str, str]) -> None:
    counts = Counter(roles.values())
    if set(counts) <= {UNKNOWN}:
        raise UserError(f"the profile contains no roles, so {PREFIX}{role} is unknown; profile the model again")
    if role not in counts:
        has = ", ".join(f"{name} ({counts[name]})" for name in ROLES if name in counts)
        raise UserError(f"no layer has the role {role!r}; the profile has {has}")
