"""Builds a model from its configuration without values, and computes its layers, multiply-adds and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from bitplan.planner.costs.candidates import adapted, fits
from bitplan.planner.errors import UserError
from bitplan.planner.graph.trace import find_layers, survey, trace
from bitplan.planner.outlines import MAKERS
from bitplan.planner.outlines.inputs import InputMaker, Latents
from bitplan.planner.outlines.models import MetaModel, read
from bitplan.planner.outlines.outline import Component, Outline, Size, StoredBytes
from bitplan.planner.texts import cause_of
from bitplan.plans.checks import shown
from bitplan.plans.formats.storage import stored_bytes
from bitplan.plans.scheme import Scheme, parse_scheme

ITEMSIZES = {"float32": 4, "bfloat16": 2}  # bytes
_USUAL = 8  # pixels a latent row of most pipelines; a pipeline's own autoencoder may differ
_KEYS = ("sample_height", "sample_width")  # keys of configurations without one `sample_size`


def examine(path: str, names: Sequence[str] = (), size: Size | None = None, schemes: Sequence[str] = ()) -> Outline:
    """Builds the model that `path` describes (see `models.read`) on the meta device and runs it once.

    size: of the run; schemes: text forms of the schemes whose bytes are computed. Raises UserError for a configuration
    that cannot be read or built and for a size that the model cannot produce, SchemeError.
    """
    parsed = [parse_scheme(scheme) for scheme in schemes]
    model = read(path, names)
    parts = tuple(_component(model, name, module, size or Size()) for name, module in model.parts.items())
    return Outline(model.name, parts, stored(parts, parsed))


def _component(model: MetaModel, name: str, module: nn.Module, size: Size) -> Component:
    kind = type(module).__name__
    parameters = sum(tensor.numel() for tensor in module.parameters())
    parts = {name: module}
    maker = MAKERS.get(kind)
    config: Any = module.config
    call, why = None, f"the inputs of {kind} are not known"
    try:
        call = _latents(config, maker, size, model.scale) if maker else None
        inputs = maker.make(config, call) if maker and call else None
        if inputs is not None:
            with torch.no_grad(), torch.device("meta"):
                return Component(name, kind, parameters, trace(parts, lambda: module(**inputs)), call)
        why += " for this configuration" if maker else ""
    except UserError:
        raise
    except Exception as error:  # its forward reads values, or its inputs or values differ from those that are known
        why = f"{kind} does not run without values ({cause_of(error, 120)})"
    return Component(name, kind, parameters, survey(parts, find_layers(parts)), None, why)


def _latents(config: Any, maker: InputMaker, size: Size, scale: int | None) -> Latents:
    """Returns the size of a call. Raises UserError for a size that the model cannot produce."""
    scale = scale if scale and maker.scale == _USUAL else maker.scale
    frames = maker.frames if size.frames is None else size.frames
    for word, number in (("frames", frames), ("batch", size.batch), ("tokens", size.tokens)):
        if number is not None and number < 1:
            raise UserError(f"--{word} {number} is not a number of {word}; give at least 1")
    rows, columns = _side(config, maker, size, scale)
    return Latents(
        batch=size.batch,
        frames=(frames - 1) // maker.stretch + 1 if maker.frames > 1 else 1,
        rows=rows,
        columns=columns,
        tokens=size.tokens or min(maker.tokens, getattr(config, "max_position_embeddings", None) or maker.tokens),
    )


def _side(config: Any, maker: InputMaker, size: Size, scale: int) -> tuple[int, int]:
    """Returns rows and columns of latents: from `size`, else from the configuration, else from the maker."""
    if not scale:
        return 0, 0
    step = scale * maker.patch
    for word, pixels in (("height", size.height), ("width", size.width)):
        if pixels is not None and (pixels < step or pixels % step):
            raise UserError(f"--{word} {pixels} is not a multiple of {step}, as this model needs; give one")
    rows, columns = _stated(config) or maker.side
    return size.height // scale if size.height else rows, size.width // scale if size.width else columns


def _stated(config: Any) -> tuple[int, int] | None:
    """Returns the rows and columns that the configuration states, None for none. Raises UserError."""
    sample = getattr(config, "sample_size", None) or tuple(filter(None, (getattr(config, key, None) for key in _KEYS)))
    if not sample:
        return None
    pair = tuple(sample) if isinstance(sample, (list, tuple)) else (sample, sample)
    if len(pair) != 2 or not all(type(side) is int and side > 0 for side in pair):
        raise UserError(f"the configuration states the sample size {shown(sample)}; correct it to a positive integer, "
                        "or to two of them")  # fmt: skip
    return pair[0], pair[1]


def stored(parts: Sequence[Component], schemes: Sequence[Scheme]) -> tuple[StoredBytes, ...]:
    """Returns bytes in both float types, then at each scheme; a layer that a scheme does not fit stays in bfloat16."""
    duplicates = {name for part in parts for names in part.graph.tied for name in names[1:]}
    layers = [layer for part in parts for layer in part.graph.layers if layer.address not in duplicates]
    parameters = sum(part.parameters for part in parts)
    weights = sum(prod(layer.weight) for layer in layers)
    half = ITEMSIZES["bfloat16"]
    rows = [StoredBytes(name, weights * i, parameters * i, 0) for name, i in ITEMSIZES.items()]
    for scheme in schemes:
        quantized = {layer.address for layer in layers if fits(layer, adapted(layer, scheme), None)}
        size = sum(
            stored_bytes(layer.weight, scheme.weight) if layer.address in quantized else prod(layer.weight) * half
            for layer in layers
        )
        rows.append(StoredBytes(str(scheme), size, size + (parameters - weights) * half, len(layers) - len(quantized)))
    return tuple(rows)
