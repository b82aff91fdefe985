"""Packed folders whose numbers are none that BitPlan saves are refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import bitplan
from bitplan.planner.applied.loading import can_load_packed
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.plans.plan import Plan
from tests.packed import plan_for

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def packed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "pipeline"
    pipe = load_pipeline(str(tiny_folder))
    bitplan.apply(pipe, plan_for(pipe)).save_pretrained(folder)
    return folder


def first(tensors: dict[str, Tensor], ending: str, dtype: torch.dtype) -> Tensor:
    return next(t for name, t in tensors.items() if name.endswith(ending) and t.dtype == dtype).view(-1)


def fill(ending: str, value: float, dtype: torch.dtype = torch.float32) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: first(tensors, ending, dtype)[:1].fill_(value)


SPOILT: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "a scale that is NaN": (fill(".scale", float("nan")), "scale is NaN or infinite"),
    "an infinite scale": (fill(".scale", float("inf")), "scale is NaN or infinite"),
    "a scale below 0": (fill(".scale", -1.0), "scale is below 0"),
    "a scale without room": (fill(".scale", 3e38), "weights are infinite"),
    "a range that is NaN": (fill(".input_range", float("nan")), "range must be finite"),
    "a range below 0": (fill(".input_range", -1.0), "range must be finite"),
    "a code that is NaN": (
        lambda t: first(t, ".codes", torch.float8_e4m3fn).view(torch.uint8)[:1].fill_(0x7F), "codes is NaN",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_numbers_that_no_weight_is_saved_as_are_refused(name: str, packed: Path, tmp_path: Path) -> None:
    spoil, words = SPOILT[name]
    folder = shutil.copytree(packed, tmp_path / "copy")
    tensors = load_file(folder / WEIGHTS)
    spoil(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(UserError, match=words) as refused:
        load_pipeline(str(folder))
    assert "unet." in str(refused.value) and "\n" not in str(refused.value)


def test_what_was_saved_is_loaded(packed: Path) -> None:
    assert load_pipeline(str(packed)) is not None


CONFIGS: list[tuple[str, Any, str]] = [
    ("quantization_config", None, "the unet of .* has packed weights, and its config.json has no quantization_config"),
    ("quantization_config", [], r"its quantization_config is \[\], without a quant_method"),
    ("quantization_config", "bitplan", "its quantization_config is 'bitplan', without a quant_method"),
    ("quantization_config", {}, "its quantization_config is {}, without a quant_method"),
    ("quant_method", None, "its quantization_config is {.*, without a quant_method"),
    ("version", 2, "version 2"),
    ("version", True, "version"),
    ("component", "../x", "x"),
    ("component", 7, "component: 7 is not text"),
    ("schemes", None, "schemes: None is not a mapping"),
    ("schemes", {"w9": ["conv_in"]}, "names no scheme"),
    ("schemes", {"w8a8": []}, "schemes.w8a8: it has 0 entries"),
    ("schemes", {"w8a8": ["nowhere"]}, "nowhere"),
    ("ranges", {"conv_in": [float("nan")]}, "ranges.conv_in.0: nan is not finite"),
    ("ranges", {"conv_in": [-1]}, "ranges.conv_in.0: -1 is not finite and at least 0"),
    ("kernels", "fast", "kernels: 'fast' is not one of int, fake"),
    ("extra", 1, "unknown key 'extra'"),
]


@pytest.mark.parametrize(("key", "value", "words"), CONFIGS, ids=[f"{key}-{value}"[:40] for key, value, _ in CONFIGS])
def test_configs_that_are_not_saved_are_refused(key: str, value: Any, words: str, packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "copy")
    place = folder / "unet" / "config.json"
    config = json.loads(place.read_text("utf-8"))
    (config if key == "quantization_config" else config["quantization_config"])[key] = value
    place.write_text(json.dumps(config), "utf-8")
    with pytest.raises(UserError, match=words) as refused:
        load_pipeline(str(folder))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "index", ["text", 5, [1], {"unet": 5}, {"unet": {"a": 1}}, {"unet": []}, {"unet": [[]]}, {"unet": None}, {}]
)
def test_an_index_of_no_components_is_not_packed(index: Any, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    plan = Plan({"components": ["unet"]}, {"unet.layer": "w8a8"}, solver={"status": "uniform"})
    assert can_load_packed(plan, str(tmp_path)) is False
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DModel"]}))
    assert can_load_packed(plan, str(tmp_path)) is True
