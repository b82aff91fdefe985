"""Conditions that have pictures of their own for an IP-Adapter get a call each: diffusers gives one to each adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from bitplan.planner.pipelines.conditions import conditions_in
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.subject import run_subject, subject_of
from tests import tiny

WIDTH = tiny.WIDTH


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = tiny.build_pipeline()
    made.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
                              image_size=16, patch_size=8, projection_dim=WIDTH)  # fmt: skip
    size = {"height": 16, "width": 16}
    made.register_modules(image_encoder=CLIPVisionModelWithProjection(vision).eval(),
                          feature_extractor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size))  # fmt: skip
    image = {"proj.weight": torch.randn(4 * WIDTH, WIDTH), "proj.bias": torch.zeros(4 * WIDTH),
             "norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}  # fmt: skip
    crossed = [name for name in made.unet.attn_processors if name.endswith("attn2.processor")]
    outputs = [made.unet.get_submodule(name.rpartition(".")[0]).to_k.out_features for name in crossed]
    layers = {
        f"{2 * i + 1}.{key}_ip.weight": torch.randn(count, WIDTH)
        for i, count in enumerate(outputs)
        for key in ("to_k", "to_v")
    }
    made.unet._load_ip_adapter_weights([{"image_proj": image, "ip_adapter": layers}])
    return made


@pytest.mark.parametrize("listed", [False, True])
def test_each_condition_has_its_picture(pipe: Any, listed: bool, tmp_path: Path) -> None:
    entries = []
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        entries.append({"prompt": "a cat", "ip_adapter_image": [f"{i}.png"] if listed else f"{i}.png"})
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(entries))
    conditions = conditions_in(tmp_path / "prompts.yaml")
    assert conditions is not None
    generation = Generation(1, 1.5)
    together = run_subject(subject_of(pipe, generation), conditions, 0)
    alone = [run_subject(subject_of(pipe, generation), [each], seed) for seed, each in enumerate(conditions)]
    assert torch.equal(together, torch.cat(alone))
    swapped = run_subject(subject_of(pipe, generation), conditions[::-1], 0)
    assert not torch.equal(swapped, together)
