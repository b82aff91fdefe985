"""The candidates: the schemes that each layer may get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import Layer, LayerGraph
from bitplan.planner.targets import target_named
from bitplan.planner.targets.base import why
from bitplan.plans.kernels import KernelError, choose_kernel, geometry_of
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import kind_of
from bitplan.plans.scheme import KEEP, Scheme, parse_scheme, weights_alone
from bitplan.plans.transforms import TRANSFORMS
from bitplan.sensitivity.calibration.ranges import ActivationRange


@dataclass(frozen=True)
class Candidate:
    """One scheme for one layer.

    Attributes:
        layer: its address.
        scheme: the scheme.
        simulated: why no kernel of this machine runs it, or None.
    """

    layer: str
    scheme: Scheme
    simulated: str | None


def parse_schemes(texts: Sequence[str]) -> tuple[Scheme, ...]:
    """Parses the texts, and returns `keep` and their schemes, each once. Raises SchemeError."""
    return tuple(dict.fromkeys([KEEP, *(parse_scheme(text) for text in texts)]))


def candidates(
    graph: LayerGraph,
    modules: Mapping[str, nn.Module],
    schemes: Sequence[Scheme],
    observed: Mapping[str, ActivationRange],
) -> list[Candidate]:
    """Returns every scheme for every layer that it fits, as `adapted` to it. observed: layer -> calibrated range."""
    return [
        Candidate(layer.address, scheme, simulated(scheme, modules[layer.address]))
        for layer in graph.layers
        for scheme in dict.fromkeys(adapted(layer, scheme) for scheme in schemes)
        if fits(layer, scheme, observed.get(layer.address))
    ]


def loadable(offered: Sequence[Candidate], graph: LayerGraph, target: str | None) -> Sequence[Candidate]:
    """Returns the candidates that the target can load. Raises UserError if there are none but full precision."""
    if target is None:
        return offered
    reasons = [why(target_named(target), one.scheme, graph.by_address[one.layer]) for one in offered]
    found = [one for one, reason in zip(offered, reasons, strict=True) if reason is None]
    if all(one.scheme == KEEP for one in found):
        raise UserError(f"{target} can load none of these schemes in any layer ({next(filter(None, reasons), KEEP)}); "
                        "give other --schemes, or leave --target out")  # fmt: skip
    return found


def adapted(layer: Layer, scheme: Scheme) -> Scheme:
    """Returns the scheme, or its weights alone for a layer that looks rows up without rounding an input."""
    return weights_alone(scheme) if KINDS[layer.kind].looks_up else scheme


def menu(graph: LayerGraph, schemes: Sequence[Scheme]) -> tuple[Scheme, ...]:
    """Returns the schemes and those that `adapted` makes of them for layers of the graph, each once."""
    return tuple(dict.fromkeys([*schemes, *(adapted(layer, scheme) for layer in graph.layers for scheme in schemes)]))


def fits(layer: Layer, scheme: Scheme, observed: ActivationRange | None) -> bool:
    """Whether the scheme differs from the other schemes in this layer and is defined for it.

    It does not fit if its groups are as wide as the layer, if the kind of layer refuses it (`Kind.refuses`), or if
    calibration did not find what its transforms require.
    """
    inputs = prod(layer.weight[1:])
    if scheme.weight.group and scheme.weight.group >= inputs:
        return False
    if KINDS[layer.kind].refuses(scheme):
        return False
    required = [line.requires for term in scheme.transforms if (line := TRANSFORMS[term.name]).requires]
    return all(observed is not None and getattr(observed, name) for name in required)


def simulated(scheme: Scheme, module: nn.Module) -> str | None:
    """Returns why no real kernel runs the scheme in this layer on its device, or None."""
    if scheme == KEEP:
        return None
    try:
        choose_kernel(scheme, str(kind_of(module)), module.weight.device, True, geometry_of(module))
    except KernelError as error:
        return str(error)
    return None
