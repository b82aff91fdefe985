"""Names of one layer or of several: an address, a block, or a pattern. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from bitplan.planner.errors import UserError
from bitplan.plans.names import nearest_or_all

_NEAR = 3  # names that an error suggests


def matching(name: str, layers: Collection[str]) -> tuple[str, ...]:
    """The layers that a name stands for, in the order of `layers`; none if there are none.

    A name is the address of a layer, else that of a block, such as `unet.down_blocks.0`, which stands for all layers
    in it, else a pattern of such an address, in which `*` stands for any text, dots too, `?` for one character and
    `[ab]` for one of several.
    """
    if name in layers:
        return (name,)
    if inside := tuple(layer for layer in layers if layer.startswith(f"{name}.")):
        return inside
    return tuple(layer for layer in layers if fnmatchcase(layer, name) or fnmatchcase(layer, f"{name}.*"))


def layers_named(names: Iterable[str], layers: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Name -> the layers that it stands for. Raises UserError for a name that stands for none, with the nearest."""
    found = {name: matching(name, layers) for name in names}
    if empty := [name for name, its in found.items() if not its]:
        near = nearest_or_all(empty[0], dict.fromkeys((*layers, *blocks_above(layers))), _NEAR)
        raise UserError(f"no layer or block is named {empty[0]!r}{near or '; there are no layers'}")
    return found


def layer_named(name: str, layers: Collection[str]) -> str:
    """The only layer that a name stands for. Raises UserError for several and for none."""
    found = layers_named([name], layers)[name]
    if len(found) > 1:
        raise UserError(f"{name} stands for {len(found)} layers, such as {found[0]} and {found[1]}; name one of them")
    return found[0]


def blocks_above(layers: Iterable[str]) -> tuple[str, ...]:
    """The addresses of all blocks that hold the layers, the component included."""
    parts = (layer.split(".") for layer in layers)
    return tuple(dict.fromkeys(".".join(each[:end]) for each in parts for end in range(1, len(each))))


def tell_counts(found: Mapping[str, Collection[str]]) -> None:
    """Say on standard error for how many layers each name stands that is not the address of one. found: name -> its
    layers."""
    counts = [f"{name} stands for {len(its)} layer{'s' * (len(its) != 1)}" for name, its in found.items()
              if tuple(its) != (name,)]  # fmt: skip
    if counts:
        print("; ".join(counts), file=sys.stderr)


def components_in(names: Iterable[str], components: Collection[str]) -> tuple[str, ...]:
    """The components that names of components, blocks or layers are in, each once; also the first part of a name that
    is in none of them."""
    firsts = dict.fromkeys(name.partition(".")[0] for name in names)
    found = {first: [part for part in components if fnmatchcase(part, first)] for first in firsts}
    return tuple(dict.fromkeys(part for first, parts in found.items() for part in parts or [first]))
