"""Reads the result of another tool: `python -m tests.planner.support.tools TOOL FILE FOLDER`, as JSON.

Each tool runs in its own process, since importing it changes torch's settings. The tool quantizes the UNet of the
pipeline in FOLDER by FILE. For each layer the output has, from the tool's modules and tensors: `scheme`, as our text
form; `levels`, for linear layers, the largest number of values that share a scale; `bytes`, stored for a weight, with
scales and zero points.
`finite`: whether the result runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from tests import tiny

Row = tuple[str, str, Tensor, int | None, int]  # path, scheme, weight as computed with, group, bytes


def read_torchao(file: Path, folder: Path) -> tuple[nn.Module, list[Row]]:
    from diffusers import TorchAoConfig, UNet2DConditionModel

    config = TorchAoConfig.from_dict(json.loads(file.read_text()))
    unet = UNet2DConditionModel.from_pretrained(
        folder, subfolder="unet", quantization_config=config, dtype=torch.bfloat16
    )
    return unet, [_torchao_row(path, layer) for path, layer in _layers(unet)]


def _torchao_row(path: str, layer: Any) -> Row:
    weight, kind = layer.weight, type(layer.weight).__name__
    if kind == "Parameter":
        return path, "keep", weight, None, weight.nbytes
    codes = weight.qdata
    size = sum(getattr(weight, name).nbytes for name in weight.__tensor_flatten__()[0])
    if kind == "Float8Tensor":
        assert codes.dtype == torch.float8_e4m3fn and weight.scale.shape == (len(weight), 1)
        return path, "fp8a16", weight.dequantize(), None, size
    assert codes.dtype == torch.int8 and kind in ("Int8Tensor", "IntxUnpackedToInt8Tensor")
    group = weight.block_size[1]
    group = None if group == weight.shape[1] else group
    affine = kind != "Int8Tensor" and bool(weight.zero_point.any())
    inputs = 8 if kind == "Int8Tensor" and weight.act_quant_kwargs is not None else 16
    bits = 8 if kind == "Int8Tensor" else int(str(weight.target_dtype).removeprefix("torch.int"))
    return (
        path,
        f"w{bits}{f'g{group}' if group else ''}{'z' * affine}a{inputs}",
        weight.dequantize(),
        group,
        size,
    )


def read_sdnq(file: Path, folder: Path) -> tuple[nn.Module, list[Row]]:
    from diffusers import UNet2DConditionModel
    from sdnq import SDNQConfig

    config = SDNQConfig.from_dict(json.loads(file.read_text()))
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", quantization_config=config)
    return unet, [_sdnq_row(path, layer) for path, layer in _layers(unet)]


def _sdnq_row(path: str, layer: Any) -> Row:
    found = getattr(layer, "sdnq_dequantizer", None)
    if found is None:
        return path, "keep", layer.weight, None, layer.weight.nbytes
    inputs = 8 if found.use_quantized_matmul else 16
    group = found.group_size if found.group_size > 0 else None
    affine = found.weights_dtype.startswith("u")
    assert affine == (layer.zero_point is not None)
    kind = "fp8" if found.weights_dtype == "float8_e4m3fn" else "w" + found.weights_dtype.split("int")[1]
    scheme = f"{kind}{f'g{group}' if group else ''}{'z' * affine}a{inputs}"
    weight = found(
        layer.weight, layer.scale, scale_2=None, scale_zero_point=None, zero_point=layer.zero_point,
        zero_point_scale=None, zero_point_2=None, svd_up=None, svd_down=None, dtype=torch.float32,
        skip_quantized_matmul=found.use_quantized_matmul,
    )  # fmt: skip
    held = (layer.weight, layer.scale, layer.zero_point)
    return path, scheme, weight, group, sum(each.nbytes for each in held if each is not None)


def read_modelopt(file: Path, folder: Path) -> tuple[nn.Module, list[Row]]:
    import modelopt.torch.quantization as mtq
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    unet = mtq.quantize(unet, yaml.safe_load(file.read_text()), forward_loop=run)
    left = [
        name for name, module in unet.named_modules()
        if type(module).__name__ == "TensorQuantizer" and module.is_enabled
        and not name.endswith((".weight_quantizer", ".input_quantizer"))
    ]  # fmt: skip
    assert not left
    return unet, [_modelopt_row(path, layer) for path, layer in _layers(unet)]


def _modelopt_row(path: str, layer: Any) -> Row:
    weights, inputs = layer.weight_quantizer, layer.input_quantizer
    if not weights.is_enabled:
        assert not inputs.is_enabled
        return path, "keep", layer.weight, None, layer.weight.nbytes
    group = (weights.block_sizes or {}).get(-1)
    assert group or weights.axis == 0
    kind = "fp8" if weights.num_bits == (4, 3) else f"w{weights.num_bits}"
    rounded = "a16"
    if inputs.is_enabled:
        assert inputs._dynamic or (inputs.axis is None and inputs.amax.numel() == 1)
        assert not inputs._dynamic or inputs.axis in (0, (0,), (0, 1))  # samples, or tokens
        rounded = f"a{inputs.num_bits}{'' if inputs._dynamic else 't'}"
    return path, f"{kind}{f'g{group}' if group else ''}{rounded}", weights(layer.weight), group, layer.weight.nbytes


def run(unet: nn.Module) -> bool:
    """Runs one call; returns whether all numbers of the result are finite."""
    torch.manual_seed(0)
    dtype = next(p.dtype for p in unet.parameters() if p.dtype in (torch.float32, torch.bfloat16))
    side = tiny.SIDE // 2
    with torch.no_grad():
        out = unet(
            torch.randn(2, 4, side, side, dtype=dtype), torch.tensor(500),
            encoder_hidden_states=torch.randn(2, 7, tiny.WIDTH, dtype=dtype),
        ).sample  # fmt: skip
    return bool(out.isfinite().all()) and bool(out.abs().max() > 0)


def _layers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    kinds = ("Linear", "Conv2d")
    return ((path, m) for path, m in unet.named_modules() if type(m).__name__.removeprefix("Quant") in kinds
            or type(m).__name__.removeprefix("SDNQ") in kinds)  # fmt: skip


def _levels(weight: Tensor, group: int | None) -> int | None:
    if weight.dim() != 2:
        return None
    rows = weight.float().reshape(-1, group or weight.shape[1])
    return max(len(row.unique()) for row in rows)


TOOLS: dict[str, Callable[[Path, Path], tuple[nn.Module, list[Row]]]] = {
    "torchao": read_torchao, "sdnq": read_sdnq, "modelopt": read_modelopt,
}  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    tool, file, folder = sys.argv[1:]
    model, rows = TOOLS[tool](Path(file), Path(folder))
    told = {path: {"scheme": s, "levels": _levels(w.detach(), group), "bytes": b} for path, s, w, group, b in rows}
    print(json.dumps({"layers": told, "finite": run(model)}))
