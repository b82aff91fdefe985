"""A profile by hand whose layers meet every rule of the export targets, and readers of the files that they write."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bitplan.planner.graph.layers import architecture_fingerprint, from_json
from bitplan.planner.profiles.profile import Cost, Profile
from bitplan.planner.targets import TARGETS
from bitplan.planner.targets.gguf import TYPES
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.plans.formats.storage import stored_bytes
from bitplan.plans.geometry import Geometry
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.table import Measurement
from tests.planner.support.profile_writer import MODEL, graph, layer

SHAPES = {
    "wide": (512, 256), "narrow": (64, 32), "odd": (30, 33), "conv": (64, 128, 3, 3), "first": (32, 4, 3, 3),
    "Upper": (512, 256), "one": (64, 64), "two": (64, 64),
}  # fmt: skip
TIED = ("unet.one", "unet.two")
EVERY = tuple(dict.fromkeys(["keep", *DEFAULT_SCHEMES, *(one for target in TARGETS.values() for one in target.menu)]))
_CONV = Geometry((3, 3), (1, 1), (1, 1), (1, 1)).to_json()


def write_profile(path: Path, schemes: Sequence[str] = EVERY) -> Path:
    """Writes the profile; losses are multiples of 1/1024, so that their sums are exact."""
    facts = [
        layer(f"unet.{name}", *shape) | ({"kind": "conv2d", "geometry": _CONV} if len(shape) > 2 else {})
        for name, shape in SHAPES.items()
    ]
    layers = graph(*facts) | {"tied": [list(TIED)]}
    model = MODEL | {"architecture": architecture_fingerprint(from_json(layers))}
    draw = random.Random(7)
    pairs = [
        (f"unet.{name}", text) for name, shape in SHAPES.items() for text in dict.fromkeys(["keep", *schemes])
        if not (parse_scheme(text).weight.group or 0) >= shape[1] * (1 if len(shape) == 2 else 9)
        and not KINDS["linear" if len(shape) == 2 else "conv2d"].refuses(parse_scheme(text))
    ]  # fmt: skip
    losses = [
        Measurement(name, text, "nsr", draw.randint(1, 4096) / 1024, 0.01, 8, True, "imported")
        for name, text in pairs if text != "keep"
    ]  # fmt: skip
    costs = [
        Cost(name, text, stored_bytes(SHAPES[name.removeprefix("unet.")], parse_scheme(text).weight), 1.0, "", False)
        for name, text in pairs
    ]
    with Profile.create(path, {"model": model, "settings": {"prompts": ["a circle"]}}) as store:
        store.write_graph(layers, list(dict.fromkeys(["keep", *schemes])))
        store.write_costs(costs)
        store.write_measurements(losses, {"nsr": "quality"})
    return path


def _torchao(text: str, paths: Sequence[str]) -> dict[str, str]:
    configs = json.loads(text)["quant_type"]["default"]["_data"]["fqn_to_config"]
    return {path: _torchao_scheme(configs[path]) if path in configs else "keep" for path in paths}


def _torchao_scheme(config: Mapping[str, Any]) -> str:
    kind, data = config["_type"], config["_data"]
    if kind == "Int8DynamicActivationInt8WeightConfig":
        return "w8a8"
    if kind != "IntxWeightOnlyConfig":
        return {"Float8WeightOnlyConfig": "fp8a16", "Int8WeightOnlyConfig": "w8a16"}[kind]
    group = data["granularity"]["_data"].get("group_size")
    return f"w8{f'g{group}' if group else ''}{'z' * (data['mapping_type']['_data'] == 'ASYMMETRIC')}a16"


def _sdnq(text: str, paths: Sequence[str]) -> dict[str, str]:
    data = json.loads(text)
    types = {name: kind for kind, names in data["modules_dtype_dict"].items() for name in names}
    return {path: _sdnq_scheme(types.get(f"{path}.weight"), data["modules_quant_config"].get(f"{path}.weight", {}))
            for path in paths}  # fmt: skip


def _sdnq_scheme(kind: str | None, own: Mapping[str, Any]) -> str:
    if kind is None:
        return "keep"
    group = f"g{own['group_size']}" if "group_size" in own else ""
    matmul = own.get("use_quantized_matmul") or own.get("use_quantized_matmul_conv")
    weight = "fp8" if kind.startswith("float8") else f"w{kind.split('int')[1]}{group}{'z' * kind.startswith('u')}"
    return f"{weight}{'a8' if matmul else 'a16'}"


def _modelopt(text: str, paths: Sequence[str]) -> dict[str, str]:
    entries = {one["quantizer_name"]: one for one in yaml.safe_load(text)["quant_cfg"]}
    return {path: _modelopt_scheme(*(entries.get(f"{path}.{side}_quantizer", {}).get("cfg")
                                     for side in ("weight", "input"))) for path in paths}  # fmt: skip


def _modelopt_scheme(weight: Mapping[str, Any] | None, inputs: Mapping[str, Any] | None) -> str:
    if weight is None:
        return "keep"
    group = weight.get("block_sizes", {}).get(-1)
    start = "fp8" if weight["num_bits"] == [4, 3] else f"w{weight['num_bits']}{f'g{group}' if group else ''}"
    return f"{start}a16" if inputs is None else f"{start}a{inputs['num_bits']}{'t' * ('type' not in inputs)}"


def _gguf(text: str, paths: Sequence[str]) -> dict[str, str]:
    """The recipe states no inputs."""
    rules = [line.rsplit("=", 1) for line in text.splitlines()]
    kinds = {path: next(kind for pattern, kind in rules if re.search(pattern, f"{path}.weight")) for path in paths}
    return {path: "keep" if kind == "f16" else str(TYPES[kind][0]) for path, kind in kinds.items()}


READERS: dict[str, Callable[[str, Sequence[str]], dict[str, str]]] = {
    "torchao": _torchao, "sdnq": _sdnq, "modelopt": _modelopt, "gguf-recipe": _gguf,
}  # fmt: skip


def stated(target: str, scheme: str) -> str:
    """What a file of the target can state of a scheme."""
    return str(parse_scheme(scheme).weight) if target == "gguf-recipe" and scheme != "keep" else scheme
