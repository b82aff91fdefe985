"""Models that diffusers makes from a packed one get the weights that its layers compute with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    ControlNetModel,
    ControlNetUnionModel,
    ControlNetXSAdapter,
    FluxControlNetModel,
    HunyuanDiT2DControlNetModel,
    MotionAdapter,
    QwenImageControlNetModel,
    SD3ControlNetModel,
    SparseControlNetModel,
    UNetControlNetXSModel,
    UNetMotionModel,
    ZImageControlNetModel,
    ZImageControlNetPipeline,
)

import bitplan
from bitplan.planner.errors import UserError
from bitplan.plans.layers.modules import is_packed
from bitplan.plans.layers.unpacked import has_packed
from tests.packed import plan_for, same, stored
from tests.zoo import ZOO

torch.set_num_threads(1)


def motion(model: Any) -> MotionAdapter:
    torch.manual_seed(0)
    return MotionAdapter(
        block_out_channels=model.config.block_out_channels, motion_layers_per_block=model.config.layers_per_block,
        motion_norm_num_groups=4, motion_num_attention_heads=2, use_motion_mid_block=False,
    )  # fmt: skip


def controlnet_xs(model: Any) -> Any:
    adapter = ControlNetXSAdapter.from_unet(model, size_ratio=1.0)
    return UNetControlNetXSModel.from_unet(model, adapter)


UNET: dict[str, Callable[[Any], Any]] = {
    "ControlNetModel": ControlNetModel.from_unet,
    "ControlNetUnionModel": ControlNetUnionModel.from_unet,
    "SparseControlNetModel": SparseControlNetModel.from_unet,
    "UNetControlNetXSModel": controlnet_xs,
    "UNetMotionModel": lambda model: UNetMotionModel.from_unet2d(model, motion(model)),
}
TRANSFORMERS: dict[str, Callable[[Any], Any]] = {
    "FluxPipeline": lambda model: FluxControlNetModel.from_transformer(
        model, num_layers=1, num_single_layers=1,
        **{name: model.config[name] for name in ("attention_head_dim", "num_attention_heads")},
    ),
    "StableDiffusion3Pipeline": lambda model: SD3ControlNetModel.from_transformer(model, num_layers=1),
    "HunyuanDiTPipeline": lambda model: HunyuanDiT2DControlNetModel.from_transformer(model, transformer_num_layers=2),
    "QwenImagePipeline": lambda model: QwenImageControlNetModel.from_transformer(
        model, num_layers=1, **{name: model.config[name] for name in ("attention_head_dim", "num_attention_heads")}
    ),
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {  # what a model needs for the class to be made from it
    "SparseControlNetModel": {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]},
    "UNetControlNetXSModel": {"layers_per_block": 2},
    "HunyuanDiTPipeline": {"pooled_projection_dim": 1024},
}
ANIMALS = dict.fromkeys(UNET, "StableDiffusionPipeline") | {name: name for name in TRANSFORMERS}
ANIMALS["ControlNetUnionModel"] = "StableDiffusionXLPipeline"


@pytest.mark.parametrize("name", ANIMALS)
def test_derived_models(name: str) -> None:
    pipe = ZOO[ANIMALS[name]].build()
    component, make = ("unet", UNET[name]) if name in UNET else ("transformer", TRANSFORMERS[name])
    if name in OWN:
        model = getattr(pipe, component)
        setattr(pipe, component, type(model).from_config(model.config, **OWN[name]))
    plain = copy.deepcopy(getattr(pipe, component))
    model = getattr(bitplan.apply(pipe, plan_for(pipe, (component,), ("w8a8", "w4a16", "keep"))), component)
    with torch.no_grad():
        for path, layer in model.named_modules():
            if is_packed(layer):
                plain.get_submodule(path).weight.copy_(layer.weight)
    before, config = stored(model), copy.deepcopy(dict(model.config))
    made, expected = (torch.manual_seed(0) and make(source) for source in (model, plain))
    assert not has_packed(made) and before and same(stored(model), before)
    assert same(made.state_dict(), expected.state_dict())
    assert dict(made.config) == dict(expected.config)
    assert dict(model.config) == config and "quantization_config" in config


def test_animatediff_from_pipe() -> None:
    pipe = ZOO["StableDiffusionPipeline"].build()
    bitplan.apply(pipe, plan_for(pipe, schemes=("w8a16",)))
    made = AnimateDiffPipeline.from_pipe(pipe, motion_adapter=motion(pipe.unet))
    layer = pipe.unet.down_blocks[0].resnets[0].conv1
    assert torch.equal(made.unet.down_blocks[0].resnets[0].conv1.weight, layer.weight) and has_packed(pipe.unet)


@pytest.fixture
def moving() -> Any:
    pipe = ZOO["AnimateDiffPipeline"].build()
    return bitplan.apply(pipe, plan_for(pipe, schemes=("w8a16",)))


def test_save_motion_modules(moving: Any, tmp_path: Path) -> None:
    before = stored(moving.unet)
    moving.unet.save_motion_modules(tmp_path)
    again = MotionAdapter.from_pretrained(tmp_path)
    name = "motion_modules.0.transformer_blocks.0.attn1.to_q"
    layer = moving.unet.down_blocks[0].get_submodule(name)
    assert torch.equal(again.down_blocks[0].get_submodule(name).weight, layer.weight)
    assert same(stored(moving.unet), before)


def test_free_noise(moving: Any) -> None:
    before = stored(moving.unet)
    moving.disable_free_noise()
    with pytest.raises(UserError, match="packed motion modules; call enable_free_noise on the float pipeline"):
        moving.enable_free_noise()
    assert not moving.free_noise_enabled and same(stored(moving.unet), before)
    pipe = ZOO["AnimateDiffPipeline"].build()
    pipe.enable_free_noise()
    bitplan.apply(pipe, plan_for(pipe, schemes=("w8a16",)))
    pipe.enable_free_noise(context_stride=2)
    with pytest.raises(UserError, match="packed motion modules; call disable_free_noise on the float pipeline"):
        pipe.disable_free_noise()
    assert pipe.free_noise_enabled and stored(pipe.unet)


def test_a_controlnet_of_z_image(tmp_path: Path) -> None:
    pipe = ZOO["ZImagePipeline"].build()
    torch.manual_seed(0)
    control = ZImageControlNetModel(
        [0], control_in_dim=4, dim=pipe.transformer.config.dim, n_refiner_layers=1, n_heads=2, n_kv_heads=2
    )
    bitplan.apply(pipe, plan_for(pipe, ("transformer",), ("w8a16",)))
    both = ZImageControlNetPipeline(**pipe.components, controlnet=control)
    assert both.controlnet.t_embedder is pipe.transformer.t_embedder and has_packed(both.controlnet)
    both.save_pretrained(tmp_path)
    again = ZImageControlNetPipeline.from_pretrained(tmp_path)
    assert again.controlnet.t_embedder is again.transformer.t_embedder
    assert same(again.controlnet.state_dict(), both.controlnet.state_dict())
