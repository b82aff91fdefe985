"""A packed pipeline, what it paints, and adapters for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionPipeline,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import bitplan
from bitplan.plans.plan import Plan
from tests import tiny
from tests.packed import paint, plan_for

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for(tiny.build_pipeline())


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline saved packed."""
    pipe = bitplan.apply(tiny.build_pipeline(), plan)
    path = tmp_path_factory.mktemp("packed")
    pipe.save_pretrained(path)
    return path


@pytest.fixture
def packed(folder: Path) -> Any:
    """It, loaded."""
    return DiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def picture(plan: Plan) -> torch.Tensor:
    """What the pipeline paints right after the plan was applied."""
    return paint(bitplan.apply(tiny.build_pipeline(), plan))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters for the tiny UNet, one on linear layers alone and one on convolutions too."""
    path = tmp_path_factory.mktemp("lora")
    for seed, targets in enumerate((TARGETS[:3], TARGETS)):
        unet = tiny.build_pipeline().unet
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=targets))
        StableDiffusionPipeline.save_lora_weights(
            path, unet_lora_layers=get_peft_model_state_dict(unet), weight_name=f"{seed}.safetensors"
        )
    return path


@pytest.fixture(scope="module")
def applied(plan: Plan) -> Any:
    return bitplan.apply(tiny.build_pipeline(), plan)
