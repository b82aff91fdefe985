r"""GGUF: writes a recipe of lines `pattern=type`, one for each layer; the first match counts.

    llama-quantize --tensor-type-file FILE IN.gguf OUT.gguf q8_0
    sd-cli -M convert -m IN -o OUT.gguf --tensor-type-rules "$(paste -sd, FILE)"

llama.cpp reads the file word by word, converts the pattern to lower case and searches names for it as a regular
expression, but only if the last type is quantized (tools/quantize/quantize.cpp, `parse_tensor_type_file`;
src/llama-quant.cpp, `llama_tensor_get_type`). stable-diffusion.cpp takes the same rules separated by commas
(src/model.cpp, `parse_tensor_type_rules`). ComfyUI-GGUF reads the resulting files. The recipe has no comments, since
neither program supports them.

Names are those of the diffusers state dict, optionally after stable-diffusion.cpp's prefix `model.diffusion_model.`. A
model whose tensors are renamed on conversion (the UNets of Stable Diffusion) must be converted with diffusers' names.
Types (ggml-common.h): groups of 32 with a half-precision scale; or blocks of 256 with groups of 32 (q4_K, q5_K) or 16
and scales of 4 to 8 bits, fitted by least squares. A row, here the inputs of a linear layer, consists of whole blocks;
the row of a convolution is as wide as its kernel, which no block fits. llama.cpp's products round inputs to 8 bits in
groups.
"""

from __future__ import annotations

import re
from math import prod

from bitplan.planner.graph.layers import Layer
from bitplan.planner.targets.base import ExportPart
from bitplan.plans.scheme import KEEP, Scheme, WeightFormat
from bitplan.plans.takes import INTEGERS, Takes

TYPES = {  # type -> (its format, weights in a block, bytes of a block)
    "q8_0": (WeightFormat("int", 8, 32), 32, 34),
    "q6_K": (WeightFormat("int", 6, 32, least_squares=True), 256, 210),
    "q5_0": (WeightFormat("int", 5, 32), 32, 22),
    "q5_1": (WeightFormat("int", 5, 32, affine=True), 32, 24),
    "q5_K": (WeightFormat("int", 5, 32, affine=True, least_squares=True), 256, 176),
    "q4_0": (WeightFormat("int", 4, 32), 32, 18),
    "q4_1": (WeightFormat("int", 4, 32, affine=True), 32, 20),
    "q4_K": (WeightFormat("int", 4, 32, affine=True, least_squares=True), 256, 144),
    "q3_K": (WeightFormat("int", 3, 32, least_squares=True), 256, 110),
    "q2_K": (WeightFormat("int", 2, 32, affine=True, least_squares=True), 256, 84),
}


FULL, _FULL = "f16", 2  # the type of full precision, and its bytes a number


LOST = ("the plan's scales and input formats: ggml computes its own scales, in half precision or less; its products "
        "round inputs to 8 bits or not at all, depending on the backend; `keep` is f16; stable-diffusion.cpp never "
        "quantizes some layers (embedders, img_in, final_layer)")  # fmt: skip


USE = ("llama-quantize --tensor-type-file {file} IN.gguf OUT.gguf q8_0, or sd-cli -M convert ... "
       '--tensor-type-rules "$(paste -sd, {file})"; tensor names are those of diffusers\' {component}')  # fmt: skip


_NAMES = {fmt: (name, block) for name, (fmt, block, _) in TYPES.items()}


TAKES = Takes(
    {"int": INTEGERS}, {"float": {}, "int": {"bits": (8,)}}, (),
    {"weights": "no other type of ggml is known here", "inputs.static": "its inputs have no calibrated ranges",
     "inputs.bits": "its products round inputs to 8 bits or not at all"},
)  # fmt: skip


MENU = ("w8g32a8", "w6g32ma8", "w5g32zma8", "w5g32za8", "w5g32a8", "w4g32zma8", "w4g32za8", "w4g32a8", "w3g32ma8",
        "w2g32zma8")  # fmt: skip


def refuses(scheme: Scheme, layer: Layer) -> str | None:
    """Returns why no type of ggml expresses `scheme`, whose terms it takes, of `layer`, or None."""
    name, block = _NAMES.get(scheme.weight, ("", 1))
    rules = (
        (layer.kind != "linear", "a convolution's rows are as wide as its kernel, which no block of ggml fits"),
        (layer.address != layer.address.lower(), "llama-quantize converts names to lower case"),
        (not name, "no type of ggml has these bits, groups and zero points"),
        (layer.weight[1] % block, f"{name} needs a multiple of {block} inputs"),
    )
    return next((reason for applies, reason in rules if applies), None)


def stored(scheme: Scheme, layer: Layer, itemsize: int) -> int:
    """Returns the bytes: whole blocks, or half precision."""
    if scheme == KEEP:
        return prod(layer.weight) * min(itemsize, _FULL)
    _, block, size = TYPES[_NAMES[scheme.weight][0]]
    return prod(layer.weight) // block * size


def text(part: ExportPart) -> str:
    """Returns the file; it names kept layers too, since others get the type on llama-quantize's command line."""
    names = {path: part.layers[path].held.partition(".")[2] or f"{path}.weight" for path in part.schemes}
    lines = (f"{_pattern(names[path])}={_type(scheme)}\n" for path, scheme in part.schemes.items())
    return "".join(dict.fromkeys(lines))


def _type(scheme: Scheme) -> str:
    return FULL if scheme == KEEP else _NAMES[scheme.weight][0]


def _pattern(name: str) -> str:
    return rf"^(model\.diffusion_model\.)?{re.escape(name)}$"
