"""The costs of this machine for a profile made on another: a layer at a time with random weights, never the model.

What a scheme does to the output belongs to the model and is kept as it was measured; bytes and milliseconds are found
anew. Layers of one shape are one module and are timed once, so that memory is that of the largest layer.
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
from bitplan.planner.graph.layers import CallGeometry, Layer, LayerGraph, from_json
from bitplan.planner.outlines.outline import Size, examine
from bitplan.planner.profiles.profile import Profile, open_profile
from bitplan.planner.progress import bar
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.calibration.ranges import ActivationRange


def retime(path: Path, out: Path, config: str | None = None, size: Size | None = None) -> None:
    """Write the profile `out`, which must be new: the one at `path` with the costs of this machine.

    config: where the layers' shapes and calls come from (see `outline.examine`), of one call at `size`; else the
    profile's own, of one whole image. Raises ProfileError, UserError.
    """
    if out.exists():
        raise UserError(f"{out} is there already; choose another --out")
    part = out.with_name(out.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with open_profile(path) as old:
            header, graph = old.header(), _graph(old, config, size)
            layers = graph.by_address
            dtype = getattr(torch, header["model"].get("dtype", "float32"))
            here = {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": "cpu"}
            with Profile.create(part, header | {"machine": here}) as new:
                _copy(old, new)
                offered = sorted(_offered(old, layers, dtype), key=lambda c: str(_shape(layers[c.layer])))
                costs = cost_candidates(offered, graph, RandomLayers(layers, dtype))
                new.write_costs(bar(costs, "costs", len(offered), "candidate"))
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _graph(old: Profile, config: str | None, size: Size | None) -> LayerGraph:
    """Of the layers to time. Raises UserError where they are not the profile's, or their shapes are not known."""
    graph, header = from_json(old.graph()), old.header()
    if config is None:
        if "source" in header:
            raise UserError(f"{old.path} was imported and does not know its layers' shapes; give --config")
        return graph
    found = examine(config, header["model"].get("components", ()), size).graph
    _check_same(graph, found, old.path)
    if idle := [name for name in graph.by_address if not found.by_address[name].calls]:
        raise UserError(
            f"{config}: it is not known how {idle[0]} is called, nor {len(idle) - 1} more; leave --config out"
        )
    return replace(graph, layers=tuple(found.by_address[name] for name in graph.by_address))


def _check_same(graph: LayerGraph, found: LayerGraph, path: Path) -> None:
    """An imported profile knows how many weights a layer has, but not their shape."""
    differ = [
        name
        for name, layer in graph.by_address.items()
        if name not in found.by_address or prod(found.by_address[name].weight) != prod(layer.weight)
    ]
    if differ:
        raise UserError(
            f"{len(differ)} of {len(graph.layers)} layers of {path} are not in the configuration or of another size, "
            f"such as {differ[0]}; give the configuration of its model"
        )


def _offered(old: Profile, layers: Mapping[str, Layer], dtype: torch.dtype) -> Iterator[Candidate]:
    """What the profile has costs of, else what it would have; whether it is simulated is a matter of this machine."""
    if not old.costs():
        ranges = {name: ActivationRange(**seen) for name, seen in old.ranges().items()}
        modules = {name: bare(layer, dtype) for name, layer in layers.items()}
        yield from candidates(from_json(old.graph()), modules, parse_schemes(old.schemes()), ranges)
    for known in old.costs():
        scheme = parse_scheme(known.scheme)
        yield Candidate(known.layer, scheme, simulated(scheme, bare(layers[known.layer], dtype)))


def _copy(old: Profile, new: Profile) -> None:
    """All but the costs."""
    new.write_graph(old.graph(), old.schemes())
    new.write_baseline(old.baseline())
    new.write_ranges(old.ranges())
    new.write_measurements(old.measurements(), old.families(), old.responses())


@dataclass(frozen=True)
class RandomLayers(Mapping[str, nn.Module]):
    """Address -> a module as that layer is, with random weights; the last shape asked for is kept."""

    layers: Mapping[str, Layer]
    dtype: torch.dtype

    def __getitem__(self, address: str) -> nn.Module:
        return _filled(_shape(self.layers[address]), self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


Shape = tuple[str, tuple[int, ...], bool, CallGeometry | None]


def _shape(layer: Layer) -> Shape:
    """What two layers share that are timed as one module."""
    return layer.kind, layer.weight, layer.bias, layer.geometry


def bare(layer: Layer, dtype: torch.dtype) -> nn.Module:
    """A module as the layer is, its memory asked for but not touched. Raises UserError for a kind that is not timed."""
    return _bare(_shape(layer), dtype)


def _bare(shape: Shape, dtype: torch.dtype) -> nn.Module:
    kind, weight, bias, geometry = shape
    if kind not in KINDS:
        raise UserError(f"layers of kind {kind!r} are not timed alone; profile the model here")
    options: dict[str, Any] = {"bias": bias, "dtype": dtype}
    made: nn.Module
    if kind == "linear":
        made = nn.utils.skip_init(nn.Linear, weight[1], weight[0], **options)  # type: ignore[no-untyped-call]
    elif KINDS[kind].looks_up:
        made = nn.utils.skip_init(nn.Embedding, *weight, dtype=dtype)  # type: ignore[no-untyped-call]
    else:
        assert geometry is not None
        made = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            getattr(nn, KINDS[kind].layer), weight[1] * geometry.groups, weight[0], tuple(weight[2:]), geometry.stride,
            geometry.padding, geometry.dilation, geometry.groups, padding_mode=geometry.padding_mode, **options,
        )  # fmt: skip
    return made


@lru_cache(maxsize=1)
def _filled(shape: Shape, dtype: torch.dtype) -> nn.Module:
    module = _bare(shape, dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
    return module.eval()
