"""torchao through diffusers: writes the dictionary of a `TorchAoConfig` with an `FqnToConfig` as JSON.

The format is that of `TorchAoConfig.to_dict` and torchao's `config_to_dict` (diffusers 0.42.1, torchao 0.18.0): `_type`
is a class, `_data` its fields; missing fields have their defaults. Keys are the full names of modules, which diffusers
supports since its pull request 14686. Its hook quantizes only `nn.Linear.weight`, and the formats of fewer than 8 bits
that run everywhere (`IntxWeightOnlyConfig`) are stored in 8.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any

from bitplan.planner.graph.layers import Layer
from bitplan.planner.targets.base import ExportPart
from bitplan.plans.scheme import KEEP, Scheme
from bitplan.plans.takes import ANY, Takes

LOST = "the plan's scales: torchao computes its own, min-max, when it quantizes, and rounds the model in bfloat16"


USE = ("{component} = CLASS.from_pretrained(..., dtype=torch.bfloat16, quantization_config="
       "diffusers.TorchAoConfig.from_dict(json.load(open({file!r}))))")  # fmt: skip


TAKES = Takes(
    {"int": {"bits": (8,), "group": ANY, "affine": ANY}, "fp8": {}}, {"float": {}, "int": {"bits": (8,)}}, (),
    {"weights.least_squares": "its scales are min-max, not of least squares",
     "weights.bits": "it stores fewer than 8 bits in 8, which saves nothing",
     "inputs.static": "its configuration holds no calibrated ranges of inputs",
     "inputs.bits": "it rounds inputs to 8 bits or not at all"},
)  # fmt: skip


MENU = ("w8a8", "w8a16", "fp8a16")


_FULL = 2  # bytes of a number in bfloat16


def refuses(scheme: Scheme, layer: Layer) -> str | None:
    """Returns why torchao cannot express `scheme`, whose terms it takes, of `layer`, or None."""
    weight, inputs = scheme.weight, scheme.inputs
    rules = (
        (layer.kind != "linear", "diffusers lets torchao quantize linear layers only"),
        (weight.kind == "fp8" and inputs.bits != 16, "its fp8 weights take no integer inputs"),
        (inputs.bits == 8 and (weight.affine or weight.group), "with 8-bit inputs its scales are symmetric and one a "
                                                               "channel"),
        (weight.group and layer.weight[1] % weight.group, "its groups must divide the inputs"),
    )  # fmt: skip
    return next((reason for applies, reason in rules if applies), None)


def stored(scheme: Scheme, layer: Layer, itemsize: int) -> int:
    """Returns the bytes: codes of 8 bits, with scales and, of integers, zero points of 8 bits; else bfloat16.

    Scales are float32 where there is one a row and no zero point in use, else bfloat16.
    """
    if scheme == KEEP:
        return prod(layer.weight) * min(itemsize, _FULL)
    weight = scheme.weight
    scales = layer.weight[0] * (layer.weight[1] // weight.group if weight.group else 1)
    scale = 2 if weight.group or weight.affine else 4
    return prod(layer.weight) + scales * (scale + (weight.kind == "int"))


def text(part: ExportPart) -> str:
    """Returns the file; modules without an entry stay in full precision."""
    configs = {path: _config(scheme) for path, scheme in part.schemes.items() if scheme != KEEP}
    quant_type = {"default": _object("FqnToConfig", 1, fqn_to_config=configs)}
    return json.dumps({"quant_method": "torchao", "quant_type": quant_type}, indent=1) + "\n"


def _config(scheme: Scheme) -> dict[str, Any]:
    weight = scheme.weight
    if weight.kind == "fp8":
        return _object("Float8WeightOnlyConfig", 2, weight_dtype=_dtype("float8_e4m3fn"))
    if scheme.inputs.bits == 8:
        return _object("Int8DynamicActivationInt8WeightConfig", 2, act_mapping_type=_mapping(False),
                       granularity=_object("PerRow", 1, dim=-1))  # fmt: skip
    if not weight.group and not weight.affine:
        return _object("Int8WeightOnlyConfig", 2, granularity=_object("PerRow", 1, dim=-1))
    shared = _object("PerGroup", 1, group_size=weight.group) if weight.group else _object("PerAxis", 1, axis=0)
    return _object("IntxWeightOnlyConfig", 2, weight_dtype=_dtype("int8"), granularity=shared,
                   mapping_type=_mapping(weight.affine))  # fmt: skip


def _object(kind: str, version: int, **fields: Any) -> dict[str, Any]:
    return {"_type": kind, "_version": version, "_data": fields}


def _dtype(name: str) -> dict[str, str]:
    return {"_type": "torch.dtype", "_data": name}


def _mapping(affine: bool) -> dict[str, str]:
    return {"_type": "MappingType", "_data": "ASYMMETRIC" if affine else "SYMMETRIC"}
