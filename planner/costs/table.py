"""Computes the costs of candidates: their stored bytes, and milliseconds of the kernel that runs them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from math import prod

import torch
from torch import nn

from bitplan.planner.costs.allocator import kept_memory
from bitplan.planner.costs.candidates import Candidate
from bitplan.planner.costs.clock import CacheLoad, timing_of
from bitplan.planner.graph.layers import Layer, LayerGraph
from bitplan.planner.profiles.profile import Cost
from bitplan.plans.kernels import choose_kernel, geometry_of
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.numerics import layout_of, scheme_bytes
from bitplan.plans.scheme import KEEP, Scheme

_STAND_IN = 4.0  # the value of fitted parameters while timing


def cost_candidates(
    pending: Sequence[Candidate], graph: LayerGraph, modules: Mapping[str, nn.Module]
) -> Iterator[Cost]:
    """Yields the cost of each candidate, in order. Layers of one shape are timed once.

    A layer is timed as it runs in the model: the caches contain other layers' weights, and its input has just been
    written. A simulated scheme is timed as full precision, which would run instead.
    """
    timed: dict[tuple[object, ...], tuple[float, float, str]] = {}
    rest = CacheLoad(sum(prod(layer.weight) for layer in graph.layers) * torch.float32.itemsize)
    for candidate in pending:
        layer, module = graph.by_address[candidate.layer], modules[candidate.layer]
        scheme = KEEP if candidate.simulated else candidate.scheme
        key = _shape_of(layer, scheme)
        if key not in timed:
            timed[key] = _time_layer(layer, module, scheme, rest)
        ms, error, kernel = timed[key]
        size = scheme_bytes(candidate.scheme, layer.weight, module.weight.element_size())
        simulated = candidate.simulated is not None
        yield Cost(candidate.layer, str(candidate.scheme), size, ms, "none" if simulated else kernel, simulated, error)


def timings_of(pending: Sequence[Candidate], graph: LayerGraph) -> int:
    """Returns how many timings the costs of the candidates need."""
    chosen = [(graph.by_address[each.layer], KEEP if each.simulated else each.scheme) for each in pending]
    return len({_shape_of(*pair) for pair in chosen})


def _shape_of(layer: Layer, scheme: Scheme) -> tuple[object, ...]:
    """Returns a key; candidates with equal keys are timed once."""
    return layer.kind, layer.weight, layer.geometry, layer.calls, layer.runs, str(scheme)


def _time_layer(layer: Layer, module: nn.Module, scheme: Scheme, rest: CacheLoad) -> tuple[float, float, str]:
    """Returns the milliseconds of all calls of the layer in a run, the mean over conditions, their standard error, and
    the kernel's name."""
    name, dtype = "float", torch.long if KINDS[layer.kind].looks_up else module.weight.dtype
    if scheme != KEEP:
        kernel = choose_kernel(scheme, layer.kind, module.weight.device, True, geometry_of(module))
        layout = layout_of(scheme, module.weight.shape)
        fitted = {name: torch.full_like(tensor, _STAND_IN, device="cpu") for name, tensor in layout.items()}
        module, name = quantize_module(module, scheme, kernel, fitted), kernel.name
    generator = torch.Generator().manual_seed(0)
    total, variance = 0.0, 0.0
    for call in layer.calls:
        x = _stand_in(layer, call.input, generator).to(dtype)

        def before(x: torch.Tensor = x) -> None:
            rest.run()
            x.mul_(1)  # brings it into the caches

        with kept_memory():
            ms, error = timing_of(lambda x=x: module(x), before)  # type: ignore[misc]
        total, variance = total + ms * call.count, variance + (error * call.count) ** 2
    return total / layer.runs, math.sqrt(variance) / layer.runs, name


def _stand_in(layer: Layer, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Returns an input of that shape: row numbers for an embedding, else random values."""
    if KINDS[layer.kind].looks_up:
        return torch.randint(layer.weight[0], shape, generator=generator, dtype=torch.int64, device="cpu")
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def parameters_of(layers: Sequence[Layer]) -> int:
    """Returns the number of weights (not biases) of all layers."""
    return sum(prod(layer.weight) for layer in layers)
