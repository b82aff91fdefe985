"""Plans with schemes of every kind for tiny pipelines, and what such a pipeline paints."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.layers import architecture_fingerprint
from bitplan.planner.graph.trace import find_layers, survey
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import generate
from bitplan.plans.kinds import KINDS
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import parse_scheme
from tests import tiny

SCHEMES = ("w8a8", "w4g64ma8", "w3a8", "keep", "w8a8t", "fp8a16", "w4g64za8", "w2ma16")
GENERATION = Generation(steps=2, guidance=2.0)


def plan_for(pipe: Any, components: Sequence[str] = ("unet",), schemes: Sequence[str] = SCHEMES) -> Plan:
    """The schemes in turn, over the layers of the components; `w4a16` where one means nothing for a layer's kind."""
    parts = {name: getattr(pipe, name) for name in components}
    layers = list(find_layers(parts))
    graph = survey(parts, layers)
    return Plan(
        model={
            "name": "tiny", "fingerprint": fingerprint(parts, graph), "components": list(components),
            "architecture": architecture_fingerprint(graph),
        },
        schemes={
            layer: "w4a16" if KINDS[graph.by_address[layer].kind].refuses(parse_scheme(text)) else text
            for layer, text in zip(layers, itertools.cycle(schemes))
        },
        calibration={"ranges": {layer: {"tensor": 3 + i / 7} for i, layer in enumerate(layers)}},
        solver={"status": "uniform"},
    )  # fmt: skip


def paint(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return generate(pipe, list(tiny.PROMPTS), GENERATION)


def stored(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the packed layers."""
    names = ("codes", "scale", "zero", "input_range")
    return {key: value for key, value in model.state_dict().items() if key.rpartition(".")[2] in names}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal keys, types and bits."""
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key].view(torch.uint8), b[key].view(torch.uint8)) for key in a
    )
