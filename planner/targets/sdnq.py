"""sdnq: writes the arguments of an `SDNQConfig` as JSON (by the documentation and behaviour of sdnq 0.2.8).

Names end in `.weight`: a name without a dot would also match inside longer ones. The file names every module, also
those in full precision, since others would get the default type. sdnq's own rules for layers to skip are switched off,
so that only the plan decides.
"""

from __future__ import annotations

import json
from math import gcd, prod
from typing import Any

from bitplan.planner.graph.layers import Layer
from bitplan.planner.targets.base import ExportPart
from bitplan.plans.scheme import KEEP, Scheme, WeightFormat
from bitplan.plans.takes import ANY, Takes

LOST = ("the plan's scales: sdnq computes its own, min-max, in a convolution mostly one for each kernel position; "
        "with 8-bit inputs it rounds grouped weights to int8 again in each call, and a convolution's inputs have one "
        "scale a patch")  # fmt: skip


USE = ("import sdnq; {component} = CLASS.from_pretrained(..., quantization_config="
       "sdnq.SDNQConfig.from_dict(json.load(open({file!r}))))")  # fmt: skip


TAKES = Takes(
    {"int": {"bits": ANY, "group": ANY, "affine": ANY}, "fp8": {}}, {"float": {}, "int": {"bits": (8,)}}, (),
    {"weights.least_squares": "its scales are min-max, not of least squares",
     "inputs.static": "it has no calibrated ranges of inputs",
     "inputs.bits": "it rounds inputs to 8 bits or not at all"},
)  # fmt: skip


MENU = ("w8a8", "w6a8", "w5a8", "w4a8", "w4g64za8", "w3g64za8", "w2g64za8", "w8a16", "w4a16")


_STEP, _LEAST = 16, 32  # its integer products need multiples of the first, at least the second


def refuses(scheme: Scheme, layer: Layer) -> str | None:
    """Returns why sdnq cannot express `scheme`, whose terms it takes, of `layer`, or None."""
    weight, inputs = scheme.weight, scheme.inputs
    outputs, channels = layer.weight[:2]
    fits = all(size >= _LEAST and size % _STEP == 0 for size in (outputs, channels))
    convolves = layer.kind != "linear"
    whole = weight.group and not convolves and channels <= weight.group  # one group is all inputs
    packed = 8 // gcd(8, weight.bits)  # codes that fill whole bytes
    rules = (
        (weight.kind == "fp8" and inputs.bits != 16, "its fp8 weights take no integer inputs"),
        (inputs.bits == 8 and not fits, f"its integer products need channels in multiples of {_STEP}, at least "
                                        f"{_LEAST}, else it leaves inputs as they are"),
        (inputs.bits == 8 and convolves and (weight.bits == 8) == bool(weight.group),
         "its convolutions take 8-bit inputs with 8-bit weights without groups or fewer bits with groups"),
        (inputs.bits == 8 and convolves and channels == weight.group, "one group is none to its convolutions"),
        (weight.group and not whole and channels % weight.group, "its groups must divide the channels, else it takes "
                                                                 "other groups"),
        (weight.kind == "int" and prod(layer.weight) % packed, f"it packs codes of {weight.bits} bits by {packed}, of "
                                                               "which the number of weights is no multiple"),
    )  # fmt: skip
    return next((reason for applies, reason in rules if applies), None)


def stored(scheme: Scheme, layer: Layer, itemsize: int) -> int:
    """Returns the bytes: packed codes, with a scale and, if affine, a zero point of float32 for each group.

    The groups of a convolution are separate at each kernel position, unless its inputs are integers and it has none.
    """
    weight, (outputs, channels, *kernel) = scheme.weight, layer.weight
    if scheme == KEEP:
        return prod(layer.weight) * itemsize
    groups = channels // weight.group if weight.group and channels > weight.group else 1
    positions = 1 if scheme.inputs.bits == 8 and not weight.group else prod(kernel)
    return prod(layer.weight) * weight.bits // 8 + outputs * groups * positions * 4 * (1 + weight.affine)


def text(part: ExportPart) -> str:
    """Returns the file: layers by type, and layers whose groups or inputs differ from the default."""
    types: dict[str, list[str]] = {}
    own: dict[str, dict[str, Any]] = {}
    for path, scheme in part.schemes.items():
        if scheme == KEEP:
            continue
        types.setdefault(_dtype(scheme.weight), []).append(f"{path}.weight")
        own[f"{path}.weight"] = _arguments(scheme, part.layers[path])
    unconverted = [path for path, scheme in part.schemes.items() if scheme == KEEP] + list(part.unplanned)
    config = {
        "quant_method": "sdnq", "weights_dtype": "int8", "group_size": -1, "quant_conv": True, "quant_embedding": False,
        "use_quantized_matmul": False, "use_quantized_matmul_conv": False, "use_dynamic_quantization": False,
        "add_skip_keys": False, "minimum_allowed_numel": 0, "minimum_allowed_channel_size": 0,
        "modules_to_not_convert": [f"{path}.weight" for path in unconverted],
        "modules_dtype_dict": types,
        "modules_quant_config": {path: arguments for path, arguments in own.items() if arguments},
    }  # fmt: skip
    return json.dumps(config, indent=1) + "\n"


def _dtype(weight: WeightFormat) -> str:
    if weight.kind == "fp8":
        return "float8_e4m3fn"
    return f"{'u' * weight.affine}int{weight.bits}"


def _arguments(scheme: Scheme, layer: Layer) -> dict[str, Any]:
    matmul = "use_quantized_matmul" if layer.kind == "linear" else "use_quantized_matmul_conv"
    group = {"group_size": scheme.weight.group} if scheme.weight.group else {}
    return group | ({matmul: True} if scheme.inputs.bits == 8 else {})
