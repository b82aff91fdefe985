"""Chooses the variant of a pipeline's weights, such as fp16, among those that its folder has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.weights import Weights

_SHARD = r"(?:-\d{5}-of-\d{5})?"
_WEIGHTS = re.compile(  # as diffusers and transformers name weights: before or after a shard's number, a variant
    rf"(?:diffusion_pytorch_model|pytorch_model|model){_SHARD}(?:\.(?P<variant>\w+))?{_SHARD}\.(?:safetensors|bin)"
)
Variants = Mapping[str, set[str | None]]  # component -> the variants of its weights, None for plain ones


def chosen_variant(name: str, folder: Path, components: Iterable[str], weights: Weights) -> str | None:
    """Returns the variant to load; None for plain weights.

    It is the one that is asked for, else the recorded one if it is there, else the one in which those components have
    weights that have no plain ones. Raises UserError where it is not there, or several could be meant.
    """
    found = {component: names for component in components if (names := _variants(folder / component))}
    known = {variant for names in found.values() for variant in names if variant}
    chosen = weights.variant or (weights.recorded if weights.recorded in known else None)
    if chosen is None:
        return _only_variant(name, found)
    if chosen not in known or not all(names & {None, chosen} for names in found.values()):
        raise UserError(f"{name} lacks weights of the variant {chosen}; it has {_listed(found)}; "
                        "give --variant as one of those, or leave it out")  # fmt: skip
    return chosen


def _only_variant(name: str, found: Variants) -> str | None:
    lacking = {component: names for component, names in found.items() if None not in names}
    if not lacking:
        return None
    common = sorted(set.intersection(*lacking.values()), key=str)
    if len(common) != 1:
        raise UserError(f"{name} has weights in variants alone, and not one for all: {_listed(lacking)}; give one of "
                        "them as --variant, or complete the folder")  # fmt: skip
    return common[0]


def _listed(found: Variants) -> str:
    """`unet (fp16 and plain ones), vae (plain ones)`."""
    each = (f"{one} ({' and '.join(sorted(name or 'plain ones' for name in names))})" for one, names in found.items())
    return ", ".join(each) or "none"


def _variants(folder: Path) -> set[str | None]:
    """The variants of the weights in a component's folder, None for plain weights."""
    matches = (_WEIGHTS.fullmatch(file.name) for file in (folder.iterdir() if folder.is_dir() else ()))
    return {match["variant"] for match in matches if match}
