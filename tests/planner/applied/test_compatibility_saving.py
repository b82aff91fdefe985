"""A packed model that could not be loaded is not saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from torch import nn
from transformers import CLIPTextModel

import bitplan
from bitplan.planner.errors import UserError
from bitplan.plans.plan import Plan
from tests import tiny
from tests.packed import plan_for
from tests.zoo import ZOO

torch.set_num_threads(1)
OUT = "keep the plan in its file instead: load the float pipeline, make the same changes, call bitplan.apply"


def fused() -> Any:
    """As BitPlan advises where packed projections are to be fused."""
    pipe = tiny.build_pipeline()
    pipe.fuse_qkv_projections(vae=False)
    return pipe


def adapted() -> Any:
    """The layers of an IP-Adapter."""
    pipe = tiny.build_pipeline()
    own = {
        name: IPAdapterAttnProcessor2_0(64, tiny.WIDTH) if ".attn2." in name else processor
        for name, processor in pipe.unet.attn_processors.items()
    }
    pipe.unet.set_attn_processor(own)
    return pipe


def wider() -> Any:
    """An input layer with more channels than its config says."""
    pipe = tiny.build_pipeline()
    pipe.unet.conv_in = nn.Conv2d(9, 32, 3, padding=1)
    return pipe


def extended() -> Any:
    """A float tensor beside the packed layers."""
    pipe = tiny.build_pipeline()
    pipe.unet.own = nn.Parameter(torch.ones(3))
    return pipe


def emptied() -> Any:
    """Without a layer that its class has."""
    pipe = tiny.build_pipeline()
    pipe.unet.conv_norm_out = nn.Identity()
    return pipe


def contradicting() -> Any:
    """A config of which its class cannot be made."""
    pipe = tiny.build_pipeline()
    pipe.unet.register_to_config(block_out_channels=(32,))
    return pipe


CHANGED = {
    "fused": (fused, r"could not be loaded: no layer 'unet\.down_blocks.*to_(qkv|kv)"),
    "adapted": (adapted, r"could not be loaded: no layer 'unet\..*processor\.to_k_ip\.0"),
    "wider": (wider, r"conv_in\.codes has shape \(32, 81\), and \(32, 36\) by its config"),
    "extended": (extended, r"could not be loaded: 1 of its \d+ tensors, such as own, have no place"),
    "contradicting": (contradicting, "could not be loaded: Must provide the same number of `block_out_channels`"),
    "emptied": (emptied, r"could not be loaded: it lacks 2 tensors of a UNet2DConditionModel.*conv_norm_out\.weight"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_could_not_be_loaded_is_not_saved(name: str, tmp_path: Path) -> None:
    make, why = CHANGED[name]
    pipe = make()
    bitplan.apply(pipe, plan_for(pipe, schemes=("w8a8",)))
    with pytest.raises(UserError, match=f"{why}.*{OUT}"):
        pipe.unet.save_pretrained(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_layers_that_are_added_later(packed: Any, tmp_path: Path) -> None:
    packed.unet.encoder_hid_proj = nn.Linear(2, 2)
    with pytest.raises(UserError, match="2 of its .* encoder_hid_proj.weight.*remove what was added"):
        packed.unet.save_pretrained(tmp_path)
    packed.unet.encoder_hid_proj = None
    packed.unet.save_pretrained(tmp_path)


def test_models_of_the_config_of_a_packed_one(plan: Plan, tmp_path: Path) -> None:
    both = plan_for(tiny.build_pipeline(), ("unet", "text_encoder"))
    pipe = bitplan.apply(tiny.build_pipeline(), both)
    for model in (
        UNet2DConditionModel.from_config(pipe.unet.config),
        CLIPTextModel(copy.copy(pipe.text_encoder.config)),
    ):
        with pytest.raises(UserError, match="has float layers and the config of a packed model.*without its entry"):
            model.save_pretrained(tmp_path)
        assert not [*tmp_path.iterdir()]
    plain = {key: value for key, value in pipe.unet.config.items() if key != "quantization_config"}
    UNet2DConditionModel.from_config(plain).save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    assert "quantization_config" not in again.config


def test_models_that_hold_layers_of_a_packed_one(packed: Any, tmp_path: Path) -> None:
    control = ControlNetModel.from_unet(ZOO["StableDiffusionPipeline"].build().unet)
    control.conv_in = packed.unet.conv_in
    with pytest.raises(UserError, match="this ControlNetModel holds packed layers of another model"):
        control.save_pretrained(tmp_path)
    assert not [*tmp_path.iterdir()]
