"""Rules on several layers at once: `role:in` in place of a layer. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from planner.errors import UserError
from planner.roles import ROLES, UNKNOWN

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
