"""What may be chosen: the schemes offered to each layer, and the reason where one is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from bitplan.planner.graph.layers import Layer, LayerGraph
from bitplan.plans.kernels import KernelError, choose_kernel, geometry_of
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import kind_of
from bitplan.plans.scheme import KEEP, Scheme, parse_scheme
from bitplan.plans.transforms import TRANSFORMS
from bitplan.sensitivity.calibration.ranges import ActivationRange


@dataclass(frozen=True)
class Candidate:
    """One choice for one layer. simulated: why no kernel here runs it, None where one does."""

    layer: str
    scheme: Scheme
    simulated: str | None


def parse_schemes(texts: Sequence[str]) -> tuple[Scheme, ...]:
    """The schemes named, `keep` first, each once. Raises SchemeError."""
    return tuple(dict.fromkeys([KEEP, *(parse_scheme(text) for text in texts)]))


def candidates(
    graph: LayerGraph, modules: Mapping[str, nn.Module], schemes: Sequence[Scheme], seen: Mapping[str, ActivationRange]
) -> list[Candidate]:
    """Every scheme for every layer, but none that would be another by another name (a group wider than the layer)
    or that needs a constant first token where calibration saw none."""
    return [
        Candidate(layer.address, scheme, simulated(scheme, modules[layer.address]))
        for layer in graph.layers
        for scheme in schemes
        if fits(layer, scheme, seen.get(layer.address))
    ]


def fits(layer: Layer, scheme: Scheme, seen: ActivationRange | None) -> bool:
    """Whether the scheme says something of its own about this layer; schemes that round the inputs of an embedding, or
    look for a convolution's first token, say nothing (`Kind.refuses`)."""
    inputs = prod(layer.weight[1:])
    if scheme.weight.group and scheme.weight.group >= inputs:
        return False
    if KINDS[layer.kind].refuses(scheme):
        return False
    required = [line.requires for term in scheme.transforms if (line := TRANSFORMS[term.name]).requires]
    return all(seen is not None and getattr(seen, name) for name in required)


def simulated(scheme: Scheme, module: nn.Module) -> str | None:
    """Why no real kernel runs the scheme in this layer where it is, or None."""
    if scheme == KEEP:
        return None
    try:
        choose_kernel(scheme, str(kind_of(module)), module.weight.device, True, geometry_of(module))
    except KernelError as error:
        return str(error)
    return None
