"""What a configuration alone tells of a model: its layers, and what one call costs in multiply-adds and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import nn

from bitplan.planner.costs.candidates import fits
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import LayerGraph, architecture_fingerprint, total_macs, total_parameters
from bitplan.planner.graph.trace import find_layers, survey, trace
from bitplan.planner.outlines import MAKERS
from bitplan.planner.outlines.inputs import InputMaker, Latents
from bitplan.planner.outlines.models import Blueprint, read
from bitplan.plans.formats import stored_bytes
from bitplan.plans.scheme import Scheme

ITEMSIZES = {"float32": 4, "bfloat16": 2}
_USUAL = 8  # pixels a latent row, of which pipelines may differ by their autoencoder
_KEYS = ("sample_height", "sample_width")  # of configurations whose sample has no one size


@dataclass(frozen=True)
class Size:
    """How large a call is asked for; None is what the model's pipelines usually make. width, height: pixels; frames:
    of the video; tokens: of text; batch: images, of which guidance makes two each."""

    width: int | None = None
    height: int | None = None
    frames: int | None = None
    tokens: int | None = None
    batch: int = 1


@dataclass(frozen=True)
class Component:
    """One component. kind: its class; parameters: numbers in all its parameters, layers' or not; graph: with `calls`
    of one call where it ran; call: the size of that, None where it did not run, and then `why`."""

    component: str
    kind: str
    parameters: int
    graph: LayerGraph
    call: Latents | None
    why: str | None = None

    @property
    def macs(self) -> int:
        """Multiply-adds of the layers in one call; 0 where it did not run."""
        return total_macs(self.graph)


@dataclass(frozen=True)
class Outline:
    """All components of one configuration."""

    name: str
    parts: tuple[Component, ...]

    @cached_property
    def graph(self) -> LayerGraph:
        """The layers of all components, each in its order."""
        graphs = [part.graph for part in self.parts]
        return LayerGraph(
            layers=tuple(chain.from_iterable(g.layers for g in graphs)),
            edges=tuple(chain.from_iterable(g.edges for g in graphs)),
            shared_inputs=tuple(chain.from_iterable(g.shared_inputs for g in graphs)),
            tied=tuple(chain.from_iterable(g.tied for g in graphs)),
            unused=tuple(chain.from_iterable(g.unused for g in graphs)),
            parts=tuple(chain.from_iterable(g.parts for g in graphs)),
        )

    @property
    def parameters(self) -> int:
        """Numbers in all parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def architecture(self) -> str:
        """As in a profile of the same model and components."""
        return architecture_fingerprint(self.graph)


@dataclass(frozen=True)
class StoredBytes:
    """The model with every layer's weight at one scheme or float type. weights: bytes of the layers' weights, exactly
    as stored; whole: with biases and all else, in bfloat16 beside a scheme, else in the float type; kept: layers that
    the scheme does not suit."""

    scheme: str
    weights: int
    whole: int
    kept: int


def examine(path: str, names: Sequence[str] = (), size: Size | None = None) -> Outline:
    """Build what `path` describes without values (see `models.read`) and run it once, without values, at `size`.

    Raises UserError for what cannot be read or built, and for a size that the model cannot make.
    """
    plan = read(path, names)
    parts = tuple(_part(plan, name, module, size or Size()) for name, module in plan.parts.items())
    return Outline(plan.name, parts)


def _part(plan: Blueprint, name: str, module: nn.Module, size: Size) -> Component:
    kind = type(module).__name__
    parameters = sum(tensor.numel() for tensor in module.parameters())
    parts = {name: module}
    maker = MAKERS.get(kind)
    config: Any = module.config
    call = _latents(config, maker, size, plan.scale) if maker else None
    given = maker.make(config, call) if maker and call else None
    if given is None:
        why = f"what a call of {kind} is given is not known{' for this configuration' if maker else ''}"
        return Component(name, kind, parameters, survey(parts, find_layers(parts)), None, why)
    try:
        with torch.no_grad(), torch.device("meta"):
            return Component(name, kind, parameters, trace(parts, lambda: module(**given)), call)
    except Exception as error:  # a forward that looks at values, or a configuration that its maker does not know
        why = f"{kind} does not run without values ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        return Component(name, kind, parameters, survey(parts, find_layers(parts)), None, why)


def _latents(config: Any, maker: InputMaker, size: Size, scale: int | None) -> Latents:
    """The size of a call. Raises UserError for one that the model cannot make."""
    scale = scale if scale and maker.scale == _USUAL else maker.scale
    frames = maker.frames if size.frames is None else size.frames
    for word, number in (("frames", frames), ("batch", size.batch), ("tokens", size.tokens)):
        if number is not None and number < 1:
            raise UserError(f"--{word} {number} is no number of {word}; give at least 1")
    rows, columns = _side(config, maker, size, scale)
    return Latents(
        batch=size.batch,
        frames=(frames - 1) // maker.stretch + 1 if maker.frames > 1 else 1,
        rows=rows,
        columns=columns,
        tokens=size.tokens or min(maker.tokens, getattr(config, "max_position_embeddings", None) or maker.tokens),
    )


def _side(config: Any, maker: InputMaker, size: Size, scale: int) -> tuple[int, int]:
    """Rows and columns of latents: as asked, else by the configuration where it says."""
    if not scale:
        return 0, 0
    step = scale * maker.patch
    for word, pixels in (("height", size.height), ("width", size.width)):
        if pixels is not None and (pixels < step or pixels % step):
            raise UserError(f"--{word} {pixels} is no multiple of {step}, which this model makes; give one")
    sample = getattr(config, "sample_size", None) or tuple(filter(None, (getattr(config, key, None) for key in _KEYS)))
    rows, columns = (sample, sample) if isinstance(sample, int) else sample or maker.side
    return size.height // scale if size.height else rows, size.width // scale if size.width else columns


def stored(outline: Outline, schemes: Sequence[Scheme]) -> tuple[StoredBytes, ...]:
    """Bytes in the two float types, then at each scheme; a layer that a scheme does not suit stays in bfloat16."""
    again = {name for names in outline.graph.tied for name in names[1:]}  # a tied weight is stored once
    layers = [layer for layer in outline.graph.layers if layer.address not in again]
    weights = sum(prod(layer.weight) for layer in layers)
    half = ITEMSIZES["bfloat16"]
    rows = [StoredBytes(name, weights * i, outline.parameters * i, 0) for name, i in ITEMSIZES.items()]
    for scheme in schemes:
        taken = {layer.address for layer in layers if fits(layer, scheme, None)}
        size = sum(
            stored_bytes(layer.weight, scheme.weight) if layer.address in taken else prod(layer.weight) * half
            for layer in layers
        )
        rows.append(
            StoredBytes(str(scheme), size, size + (outline.parameters - weights) * half, len(layers) - len(taken))
        )
    return tuple(rows)


def numbers(outline: Outline, rows: Sequence[StoredBytes]) -> dict[str, Any]:
    """All of it as what `json.dumps` takes, but for the layers' graph, which `to_json` writes."""
    return {
        "name": outline.name,
        "architecture": outline.architecture,
        "parameters": outline.parameters,
        "layers": len(outline.graph.layers),
        "layer_parameters": total_parameters(outline.graph),
        "macs": total_macs(outline.graph),
        "parts": [_part_numbers(part) for part in outline.parts],
        "stored": [vars(row) for row in rows],
    }


def _part_numbers(part: Component) -> Mapping[str, Any]:
    kinds: dict[str, int] = {}
    for layer in part.graph.layers:
        kinds[layer.kind] = kinds.get(layer.kind, 0) + 1
    return {
        "component": part.component, "class": part.kind, "parameters": part.parameters, "layers": kinds,
        "macs": part.macs if part.call else None, "call": part.call and vars(part.call), "why": part.why,
        "unused": list(part.graph.unused),
    }  # fmt: skip
