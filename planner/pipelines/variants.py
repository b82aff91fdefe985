"""Finds the variant of a pipeline's weights, such as fp16, where its folder has no others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bitplan.planner.errors import UserError

_SHARD = r"(?:-\d{5}-of-\d{5})?"
_WEIGHTS = re.compile(  # as diffusers and transformers name weights: before or after a shard's number, a variant
    rf"(?:diffusion_pytorch_model|pytorch_model|model){_SHARD}(?:\.(?P<variant>\w+))?{_SHARD}\.(?:safetensors|bin)"
)


def only_variant(name: str, folder: Path, components: Iterable[str]) -> str | None:
    """Returns the variant in which those components have weights that have no plain ones; None where all have those.

    name: of the pipeline. Raises UserError where they have several in common, or none.
    """
    found = {component: _variants(folder / component) for component in components}
    lacking = {component: names for component, names in found.items() if names and None not in names}
    if not lacking:
        return None
    common = sorted(set.intersection(*lacking.values()), key=str)
    if len(common) != 1:
        each = ", ".join(
            f"{component} ({' and '.join(sorted(map(str, names)))})" for component, names in lacking.items()
        )
        raise UserError(f"{name} has weights in variants alone, and not one for all: {each}; keep those of one, or "
                        "load it with variant= in your own function, and give its package.module:name")  # fmt: skip
    return common[0]


def _variants(folder: Path) -> set[str | None]:
    """The variants of the weights in a component's folder, None for plain weights."""
    matches = (_WEIGHTS.fullmatch(file.name) for file in (folder.iterdir() if folder.is_dir() else ()))
    return {match["variant"] for match in matches if match}
