"""Configurations of packed components: compact, read back, used twice, and refused where they do not fit."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel

import bitplan
from bitplan.planner.applied.checkpoint import Checkpoint
from bitplan.planner.applied.config import BitPlanConfig, component_config
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.plans.kernels import KernelError
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import parse_scheme
from tests import tiny
from tests.packed import paint, plan_for, same, stored
from tests.planner.applied.folders import load, reload_config, rewrite

torch.set_num_threads(1)


def test_a_saved_folder_never_makes_float_layers(applied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    applied.save_pretrained(tmp_path)
    made: list[int] = []
    init = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda self: made.append(self.numel()) or init(self))
    monkeypatch.setattr(Checkpoint, "read", lambda *_: pytest.fail("a packed folder has no float weights to read"))
    assert same(stored(DiffusionPipeline.from_pretrained(tmp_path).unet), stored(applied.unet)) and not made


def test_a_config_is_used_twice(tiny_folder: Path, plan: Plan) -> None:
    config = bitplan.config(plan)
    first, second = (DiffusionPipeline.from_pretrained(tiny_folder, quantization_config=config) for _ in range(2))
    assert same(stored(first.unet), stored(second.unet))
    with torch.no_grad():
        first.unet.conv_in.codes.zero_()
    assert second.unet.conv_in.codes.any()


def test_components_that_the_plan_has_not(plan: Plan) -> None:
    with pytest.raises(UserError, match="no component 'vae'; it has unet"):
        bitplan.config(plan, "vae")
    with pytest.raises(UserError, match="names layers of unet"):
        bitplan.config(replace(plan, model={**plan.model, "components": ["transformer"]}))
    with pytest.raises(UserError, match="kernels"):
        bitplan.config(plan, kernels="fast")


def test_simulated_plans(tiny_folder: Path, tmp_path: Path) -> None:
    plan = plan_for(tiny.build_pipeline(), schemes=("w4a4", "w8a8"))
    with pytest.raises(KernelError, match="no kernel runs w4a4 .* on any device.*--kernels fake"):
        load(tiny_folder, plan)
    made = load(tiny_folder, plan, kernels="fake")
    reference = bitplan.apply(load_pipeline(str(tiny_folder)), plan, kernels="fake")
    assert torch.equal(paint(made), paint(reference))
    made.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    assert again.unet.conv_in.kernel.name == "reference" and torch.equal(paint(again), paint(reference))


def test_the_config_is_compact_and_read_back(plan: Plan) -> None:
    config = component_config(plan, "unet")
    data = json.loads(json.dumps(config.to_dict()))
    again = BitPlanConfig.from_dict(data)
    assert again.to_dict() == config.to_dict() == data
    assert again.layers == {
        path.removeprefix("unet."): parse_scheme(text) for path, text in plan.schemes.items() if text != "keep"
    }
    assert set(again.ranges) == {path for path, scheme in again.layers.items() if scheme.inputs.static}
    assert len(json.dumps(data)) < 100 * len(plan.schemes)
    assert "BitPlanConfig" in repr(config) and copy.deepcopy(config).to_dict() == data


@pytest.mark.parametrize(("change", "hint"), [
    ({"version": 2}, "upgrade bitplan"),
    ({"schemes": {"w9a8": ["conv_in"]}}, "w9a8"),
    ({"kernels": "fast"}, "int, fake"),
    ({"schemes": {"w8a8": ["conv_in"], "w4a8": ["conv_in"]}}, "twice"),
    ({"ranges": {"conv_in": [-1.0]}}, "at least 0"),
    ({"schemes": {"w8a8": ["conv_out"]}}, "lacks .* tensors"),
    ({"schemes": {"w8a8": ["nowhere"]}}, "no layer 'unet.nowhere'"),
])  # fmt: skip
def test_a_config_that_does_not_fit(applied: Any, tmp_path: Path, change: dict[str, Any], hint: str) -> None:
    applied.save_pretrained(tmp_path)
    reload_config(tmp_path, **change)
    with pytest.raises(ValueError, match=hint):
        UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")


def test_a_packed_tensor_that_is_missing_or_another(applied: Any, tmp_path: Path) -> None:
    applied.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {"conv_in.codes": tensors["conv_in.codes"][:, 1:].contiguous()})
    with pytest.raises(UserError, match="conv_in.codes has shape"):
        UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    whole = applied.unet.conv_in.codes
    rewrite(tmp_path, lambda tensors: tensors | {"conv_in.codes": whole.view(torch.int8)})
    with pytest.raises(UserError, match="conv_in.codes is torch.int8"):
        UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    rewrite(tmp_path, lambda tensors: {key: value for key, value in tensors.items() if key != "conv_in.scale"})
    with pytest.raises(UserError, match="lacks 1 tensors, such as conv_in.scale"):
        UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")


def test_a_config_of_packed_weights_is_for_no_float_model(tiny_folder: Path, plan: Plan) -> None:
    with pytest.raises(UserError, match="bitplan.config makes one"):
        UNet2DConditionModel.from_pretrained(
            tiny_folder, subfolder="unet", quantization_config=component_config(plan, "unet")
        )
