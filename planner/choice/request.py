"""The request for a plan: its words, what they mean, and rules on several layers at once, such as `role:in`. Imports no
torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import ROLES, UNKNOWN
from bitplan.sensitivity.table import FAMILIES

LEXICOGRAPHIC = "lexicographic:"
KERNELS = ("int", "fake")
BUDGETS = ("memory", "latency", "bits")  # words of `Request` that bound a cost
REPEATED = {"caps": "cap", "pins": "pin"}  # words of `Request` of several values -> the option that states one value


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


def check_kernels(kernels: str) -> None:
    """Raises UserError for a name that is not in `KERNELS`."""
    if kernels not in KERNELS:
        raise UserError(f"there are no {kernels!r} kernels; choose {' or '.join(KERNELS)}")


@dataclass(frozen=True)
class Request:
    """The words that state a choice: budgets, objective and conditions. Verbs, commands and the explorer take them from
    here, with their defaults. Raises UserError for an objective or kernels that do not exist.

    Attributes:
        memory: bound on the weights' bytes, `35%` of full precision or an amount with its unit.
        latency: bound on the layers' time, likewise.
        bits: bound on the mean bits a weight.
        caps: column -> bound on its sum, a number or a scheme whose uniform plan sets the bound.
        objective: `quality`, `alignment`, `both`, weights, or `lexicographic:alignment,quality`.
        slack: share by which a later stage of a lexicographic objective may worsen an earlier one.
        pins: layer or `role:NAME` -> scheme.
        kernels: `int` allows only schemes that a real kernel runs; `fake` allows every scheme.
        confidence: plan with each loss at its upper bound of this confidence; None for mean losses.
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

    def __post_init__(self) -> None:
        weights_of(self.objective)
        check_kernels(self.kernels)

    @property
    def weights(self) -> dict[str, float]:
        """Column -> weight in the objective; of a lexicographic objective, the last column."""
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
        return {
            "objective": self.weights, "order": self.order, "memory": self.memory, "latency": self.latency,
            "bits": self.bits, "caps": dict(self.caps), "pins": dict(self.pins), "real": self.real,
            "confidence": self.confidence, "slack": self.slack,
        }  # fmt: skip


def options_of(request: Request) -> list[str]:
    """The request as options of `bitplan solve`, without those that have their default."""
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
