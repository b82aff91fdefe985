"""The fitted parameters of a plan: those of the profile that its schemes need, and which layers share them.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitplan.planner.profiles.fitted import read_parameters
from bitplan.planner.profiles.profile import Profile
from bitplan.plans.parameters import Arrays, Key, encoded
from bitplan.plans.scheme import parse_scheme
from bitplan.plans.transforms import TRANSFORMS


def shared_parameters(store: Profile, schemes: Mapping[str, str], shared: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The fields `groups` and `fitted` of a plan; none where its schemes need no fitted parameters.

    Args:
        store: the profile.
        schemes: layer address -> scheme text.
        shared: layers that read one input.
    """
    parameters = read_parameters(store)
    families = {layer: readers for readers in shared for layer in readers}
    used: dict[Key, list[str]] = {}
    for layer, text in schemes.items():
        for term in parse_scheme(text).transforms:
            of_input = TRANSFORMS[term.name].scope == "inputs"
            owner = families.get(layer, (layer,))[0] if of_input else layer
            used.setdefault((owner, str(term)), []).append(layer)
    layers_of = {key: layers for key, layers in used.items() if key in parameters}
    if not layers_of:
        return {}
    owned: dict[Key, Arrays] = {(layers[0], key[1]): parameters[key] for key, layers in layers_of.items()}
    return {"groups": _groups(layers_of), "fitted": encoded(owned)}


def _groups(layers_of: Mapping[Key, Sequence[str]]) -> tuple[dict[str, list[str]], ...]:
    """Returns the groups of layers that share parameters, with their shared transforms."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for (_, term), layers in layers_of.items():
        if len(layers) > 1:
            groups.setdefault(tuple(layers), []).append(term)
    return tuple({"members": list(members), "transforms": terms} for members, terms in groups.items())
