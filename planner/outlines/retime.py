"""Replaces the costs of a profile by those of this machine, timing one layer at a time with random weights.

Losses depend on the model only and stay as measured; bytes and milliseconds are measured again. Layers of one shape
share one module and are timed once, so the peak memory is that of the largest layer.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitplan.planner.costs.candidates import Candidate, candidates, parse_schemes, simulated
from bitplan.planner.costs.table import cost_candidates
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import Layer, LayerGraph, from_json
from bitplan.planner.outlines.examine import examine
from bitplan.planner.outlines.outline import Size
from bitplan.planner.profiles.copies import check_new, copy_without_costs, new_profile
from bitplan.planner.profiles.profile import Profile, open_profile
from bitplan.planner.profiles.speeds import PRODUCTS, TIMED
from bitplan.planner.progress import bar
from bitplan.plans.geometry import Geometry
from bitplan.plans.kernels.cpu.choice import path_choice
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.calibration.ranges import ActivationRange


def retime(path: Path, out: Path, config: str | None = None, size: Size | None = None) -> None:
    """Writes the profile at `path` with the costs of this machine to the new file `out`.

    config: a configuration that gives the layers' shapes and the calls of one run at `size` (see `examine.examine`);
    None for those in the profile, of one whole image. Raises ProfileError, UserError.
    """
    check_new(out)
    with open_profile(path) as old:
        header, graph = old.header(), _graph(old, config, size)
        layers = graph.by_address
        dtype = getattr(torch, header["model"].get("dtype", "float32"))
        here = {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": "cpu"}
        with new_profile(out, header | {"machine": here}) as new:
            copy_without_costs(old, new)
            new.write_baseline({PRODUCTS: str(path_choice())})
            if config is not None:
                new.write_baseline({TIMED: f"one call on {(size or Size()).batch} samples by {config}"})
            offered = sorted(_offered(old, layers, dtype), key=lambda c: str(_shape(layers[c.layer])))
            costs = cost_candidates(offered, graph, RandomLayers(layers, dtype))
            new.write_costs(bar(costs, "costs", len(offered), "timing"))


def _graph(old: Profile, config: str | None, size: Size | None) -> LayerGraph:
    """Returns the layers to time. Raises UserError where they are not the profile's or their shapes are unknown."""
    graph, header = from_json(old.graph()), old.header()
    if config is None:
        if "source" in header:
            raise UserError(f"{old.path} was imported and does not hold its layers' shapes; give --config")
        return graph
    outline = examine(config, header["model"].get("components", ()), size).graph
    _check_same(graph, outline, old.path)
    if idle := [name for name in graph.by_address if not outline.by_address[name].calls]:
        raise UserError(
            f"{config}: the calls of {idle[0]} and {len(idle) - 1} more layers are not known; leave --config out"
        )
    return replace(
        graph, layers=tuple(_weighed(outline.by_address[name], own) for name, own in graph.by_address.items())
    )


def _weighed(layer: Layer, own: Layer) -> Layer:
    """Returns the layer of a configuration, called by as many conditions as in the profile."""
    calls = tuple(replace(call, count=call.count * own.reached) for call in layer.calls)
    return replace(layer, calls=calls, runs=own.runs, reached=own.reached)


def _check_same(graph: LayerGraph, outline: LayerGraph, path: Path) -> None:
    """Raises UserError for other layers; compares numbers of weights, since an imported profile holds no shapes."""
    differ = [
        name
        for name, layer in graph.by_address.items()
        if name not in outline.by_address or prod(outline.by_address[name].weight) != prod(layer.weight)
    ]
    if differ:
        raise UserError(
            f"{len(differ)} of {len(graph.layers)} layers of {path} are not in the configuration or of another size, "
            f"such as {differ[0]}; give the configuration of its model"
        )


def _offered(old: Profile, layers: Mapping[str, Layer], dtype: torch.dtype) -> Iterator[Candidate]:
    """Yields the candidates of the profile's costs, or all candidates where it has none, as this machine runs them."""
    if not old.costs():
        ranges = {name: ActivationRange(**limits) for name, limits in old.ranges().items()}
        modules = {name: bare(layer, dtype) for name, layer in layers.items()}
        named = old.header()["settings"].get("schemes") or old.schemes()  # without those adapted to single kinds
        yield from candidates(from_json(old.graph()), modules, parse_schemes(named), ranges)
    for cost in old.costs():
        scheme = parse_scheme(cost.scheme)
        yield Candidate(cost.layer, scheme, simulated(scheme, bare(layers[cost.layer], dtype)))


@dataclass(frozen=True)
class RandomLayers(Mapping[str, nn.Module]):
    """Maps an address to a module of the layer's shape with random weights; only the last module is cached.

    Attributes:
        layers: address -> layer.
        dtype: float type of the weights.
    """

    layers: Mapping[str, Layer]
    dtype: torch.dtype

    def __getitem__(self, address: str) -> nn.Module:
        return _filled(_shape(self.layers[address]), self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


Shape = tuple[str, tuple[int, ...], bool, Geometry | None]


def _shape(layer: Layer) -> Shape:
    """Returns a key; layers with equal keys are timed as one module."""
    return layer.kind, layer.weight, layer.bias, layer.geometry


def bare(layer: Layer, dtype: torch.dtype) -> nn.Module:
    """Returns a module of the layer's shape, uninitialised. Raises UserError for a kind that is not timed."""
    return _bare(_shape(layer), dtype)


def _bare(shape: Shape, dtype: torch.dtype) -> nn.Module:
    kind, weight, bias, geometry = shape
    if kind not in KINDS:
        raise UserError(f"layers of kind {kind!r} are not timed alone; profile the model here")
    options: dict[str, Any] = {"bias": bias, "dtype": dtype}
    module: nn.Module
    if kind == "linear":
        module = nn.utils.skip_init(nn.Linear, weight[1], weight[0], **options)  # type: ignore[no-untyped-call]
    elif KINDS[kind].looks_up:
        module = nn.utils.skip_init(nn.Embedding, *weight, dtype=dtype)  # type: ignore[no-untyped-call]
    else:
        assert geometry is not None
        module = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            getattr(nn, KINDS[kind].layer), weight[1] * geometry.groups, weight[0], tuple(weight[2:]), geometry.stride,
            geometry.padding, geometry.dilation, geometry.groups, padding_mode=geometry.padding_mode, **options,
        )  # fmt: skip
    return module


@lru_cache(maxsize=1)
def _filled(shape: Shape, dtype: torch.dtype) -> nn.Module:
    module = _bare(shape, dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
    return module.eval()
