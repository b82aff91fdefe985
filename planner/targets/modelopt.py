"""NVIDIA ModelOpt: writes the configuration of `modelopt.torch.quantization.quantize` as YAML.

The file disables all quantizers, then lists those of the plan by exact name, with `max` calibration (the format of
`QuantizerCfgEntry` in modelopt 0.47.0; YAML, since `block_sizes` needs integer keys, which JSON lacks). Weights:
`axis: 0` is one scale a channel, `block_sizes: {-1: 64}` one for 64 inputs. Inputs: a dynamic scale for each token, or
for each sample of a convolution; or one scale a tensor, which ModelOpt calibrates.
"""

from __future__ import annotations

from typing import Any

import yaml

from bitplan.planner.graph.layers import Layer
from bitplan.planner.targets.base import ExportPart
from bitplan.plans.scheme import KEEP, InputFormat, Scheme, WeightFormat
from bitplan.plans.takes import ANY, Takes

LOST = ("the plan's scales and ranges: ModelOpt computes its own, min-max, those of static inputs in its forward_loop; "
        "its quantizers simulate, and only some formats have kernels elsewhere")  # fmt: skip


USE = "mtq.quantize(pipe.{component}, yaml.safe_load(open({file!r})), forward_loop)"


TAKES = Takes(
    {"int": {"bits": ANY, "group": ANY}, "fp8": {}}, {"float": {}, "int": {"bits": ANY, "static": ANY}}, (),
    {"weights.least_squares": "its scales are min-max, not of least squares",
     "weights.affine": "its integer weights have no zero point",
     "transforms.first": "it has no scale for the first token alone"},
)  # fmt: skip


MENU = ("w8a8", "w6a8", "w5a8", "w4a8", "w3a8", "w2a8", "w4g64a8", "w3g64a8", "w2g64a8")


def refuses(scheme: Scheme, layer: Layer) -> str | None:
    """Returns why ModelOpt cannot express `scheme`, whose terms it takes, of `layer`, or None."""
    weight = scheme.weight
    rules = (
        (weight.group and layer.kind != "linear", "its groups in a convolution run along the kernel"),
        (weight.group and layer.weight[1] % weight.group, "its groups must divide the inputs"),
    )
    return next((reason for applies, reason in rules if applies), None)


def text(part: ExportPart) -> str:
    """Returns the file; names are exact, and all other quantizers are disabled."""
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for path, scheme in part.schemes.items():
        kind = part.layers[path].kind
        if scheme != KEEP:
            entries.append({"quantizer_name": f"{path}.weight_quantizer", "cfg": _weight(scheme.weight)})
        if scheme.inputs.bits != 16:
            entries.append({"quantizer_name": f"{path}.input_quantizer", "cfg": _inputs(scheme.inputs, kind)})
    return yaml.safe_dump({"quant_cfg": entries, "algorithm": "max"}, sort_keys=False, width=120)


def _weight(weight: WeightFormat) -> dict[str, Any]:
    bits = [4, 3] if weight.kind == "fp8" else weight.bits  # exponent and mantissa
    return {"num_bits": bits} | ({"block_sizes": {-1: weight.group}} if weight.group else {"axis": 0})


def _inputs(inputs: InputFormat, kind: str) -> dict[str, Any]:
    if inputs.static:
        return {"num_bits": inputs.bits, "axis": None}
    shared = {"block_sizes": {-1: None}} if kind == "linear" else {"axis": 0}
    return {"num_bits": inputs.bits, "type": "dynamic"} | shared
