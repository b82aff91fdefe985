"""What the bytes of a profile count, and what else its pipeline holds. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from bitplan.planner.graph.layers import component_of
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.units import show_bytes

SIZES = "component bytes"  # key of the profile's baseline: component -> bytes of all its weights, as they were loaded


def sizes_text(store: Profile) -> str:
    """One line: what bytes count, and the bytes of the whole pipeline as far as they are known."""
    layers = store.layers()
    counted = f"bytes count the stored weights of the {len(layers)} planned layers, without activations"
    sizes: Mapping[str, int] = store.baseline().get(SIZES, {})
    if not sizes:
        return f"{counted} and without the rest of the pipeline"
    planned = {component_of(layer) for layer in layers}
    parts = " and ".join(f"{name} {show_bytes(size)}" for name, size in sizes.items() if name in planned)
    rest = ", ".join(f"{name} {show_bytes(size)}" for name, size in sizes.items() if name not in planned)
    whole = f"{parts} of a pipeline of {show_bytes(sum(sizes.values()))} in full precision"
    return f"{counted}; {whole}" + (f", of which {rest} stay as they are" if rest else "")
