"""The table's line of a target: what it can load of a layer, in how many bytes, and what its file says. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

from bitplan.planner.graph.layers import Layer
from bitplan.plans.scheme import KEEP, Scheme, every_scheme
from bitplan.plans.takes import Takes


@dataclass(frozen=True)
class ExportPart:
    """The contents of one file, by paths below `component` in the plan's order.

    Attributes:
        component: the component's name.
        schemes: path -> scheme.
        layers: path -> layer.
        unplanned: paths of other modules, see `Model`.
    """

    component: str
    schemes: Mapping[str, Scheme]
    layers: Mapping[str, Layer]
    unplanned: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A tool that reads exported plans.

    Attributes:
        name: its name on the command line.
        about: one line for tables.
        takes: the terms of schemes that it can express; all others are declined by name.
        menu: the schemes that `profile --target` measures by default.
        refuses: returns why it cannot express a scheme of these terms in a layer, or None.
        stored: returns the bytes in which it holds the weight of a layer at a scheme, of a model whose full precision
            has so many bytes a number; None if it packs nothing, because it simulates.
        text: returns the contents of a component's file.
        lost: the parts of a plan that its files cannot represent.
        use: how a file is used, with {file} and {component}.
        kinds: the kinds of layers that it quantizes.
    """

    name: str
    about: str
    takes: Takes
    menu: tuple[str, ...]
    refuses: Callable[[Scheme, Layer], str | None]
    stored: Callable[[Scheme, Layer, int], int] | None
    text: Callable[[ExportPart], str]
    lost: str
    use: str
    kinds: tuple[str, ...] = ("linear", "conv2d")

    def holds(self, scheme: Scheme, layer: Layer, itemsize: int) -> int:
        """The bytes in which it holds the weight of a layer: those of full precision if it simulates."""
        return prod(layer.weight) * itemsize if self.stored is None else self.stored(scheme, layer, itemsize)


def why(target: Target, scheme: Scheme, layer: Layer) -> str | None:
    """Returns why `target` cannot express `scheme` of `layer`, or None; every target can keep a layer."""
    if scheme == KEEP:
        return None
    if "." not in layer.address:
        return "it is the whole component and has no name inside it"
    if layer.held:
        return "it is a projection of nn.MultiheadAttention, which is not a module of its own in any tool"
    if layer.aliases:
        return "one module has several names, and the tool selects modules by name"
    if layer.kind not in target.kinds:
        return f"its files are written for {' and '.join(target.kinds)} layers, not for {layer.kind}"
    return target.takes.declines(scheme) or target.refuses(scheme, layer)


def nearest_scheme(target: Target, scheme: Scheme, layer: Layer) -> Scheme:
    """Returns the scheme nearest to `scheme` by `distance` that `target` can express of `layer`, `keep` at worst."""
    return next(other for other in _by_distance(scheme, tuple(every_scheme())) if why(target, other, layer) is None)


@cache
def _by_distance(planned: Scheme, schemes: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
    return tuple(sorted(schemes, key=lambda other: distance(planned, other)))


def distance(planned: Scheme, other: Scheme) -> tuple[float, ...]:
    """Returns a key for sorting, the most important difference first.

    The order is: integer or floating point, weight bits (more before fewer), input bits (likewise), static or dynamic
    input scales, transforms, groups (smaller before larger), zero points, least squares.
    """
    w, v, a, b = planned.weight, other.weight, planned.inputs, other.inputs
    group, others = w.group or 1 << 20, v.group or 1 << 20
    return (
        w.kind != v.kind, max(0, w.bits - v.bits), v.bits - w.bits, max(0, a.bits - b.bits), b.bits - a.bits,
        a.static != b.static, len(set(planned.transforms) ^ set(other.transforms)), max(1, others / group),
        group / others, w.affine != v.affine, w.least_squares != v.least_squares,
    )  # fmt: skip
