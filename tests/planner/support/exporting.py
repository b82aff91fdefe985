"""A plan of the tiny UNet that has every scheme of a mixture, and its model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitplan.planner.graph.layers import Layer, architecture_fingerprint
from bitplan.planner.graph.trace import find_layers, survey
from bitplan.planner.interop.model import Model
from bitplan.plans.kinds import KINDS
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import parse_scheme
from tests import tiny

MIXTURE = (
    "w8a8", "w4g64ma8", "w2ma8", "w8a8t+first", "w4a4", "keep", "w8a16", "w4g32a16", "w4za16", "fp8a16", "w8g64a8t",
    "w6a8", "w5g32za16", "w3g32a16", "w8za8", "w2g32zma16", "w6a6",
)  # fmt: skip


def tiny_model(*names: str) -> Model:
    """Returns the layers of these components of the tiny pipeline."""
    pipe = tiny.build_pipeline()
    parts = {name: getattr(pipe, name) for name in names or ("unet",)}
    graph = survey(parts, find_layers(parts))
    return Model(graph.by_address, (), architecture_fingerprint(graph))


def plan_for(model: Model, schemes: Mapping[str, str], **more: Any) -> Plan:
    named: dict[str, Any] = {
        "name": "tiny", "fingerprint": "0" * 64, "architecture": model.architecture,
        "components": list(dict.fromkeys(layer.partition(".")[0] for layer in model.layers)),
    }  # fmt: skip
    return Plan(named | more, dict(schemes), solver={"status": "uniform"})


def mixed(layers: Mapping[str, Layer], mixture: tuple[str, ...] = MIXTURE) -> dict[str, str]:
    """Assigns the mixture's schemes to the layers of each kind in turn, where they are valid."""
    turns = Counter[str]()
    found = {}
    for address, layer in layers.items():
        some = [text for text in mixture if not KINDS[layer.kind].refuses(parse_scheme(text))] or ["keep"]
        found[address] = some[turns[layer.kind] % len(some)]
        turns[layer.kind] += 1
    return found
