"""Pipelines of diffusers that call their denoiser in odd ways: probes estimate what exhaustive runs measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers import T2IAdapter
from PIL import Image

import bitplan
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.subject import subject_of
from bitplan.planner.profiles.profile import open_profile
from tests import tiny
from tests.zoo import unets

PICTURE = Image.effect_mandelbrot((tiny.SIDE, tiny.SIDE), (-2, -1, 1, 1), 50).convert("RGB")


def adapted() -> tuple[Any, list[Any], Generation]:
    """The U-Net removes the residuals of the adapter from the list that it gets."""
    adapter = T2IAdapter(3, [16, 32], 1, 2, "full_adapter")
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    net = unets.unet(down_block_types=down, up_block_types=up)
    pipe = diffusers.StableDiffusionAdapterPipeline(unet=net, adapter=adapter, **unets._stable())
    conditions = [{"prompt": prompt, "image": PICTURE} for prompt in unets.PROMPTS[:2]]
    return pipe, conditions, Generation(2, 2.0)


def unclip() -> tuple[Any, list[Any], Generation]:
    """Its normalizer makes new parameters in each run."""
    return unets.unclip(), list(unets.PROMPTS[:2]), Generation(2, 2.0, options=unets.PRIOR)


PIPELINES = {"StableDiffusionAdapterPipeline": adapted, "StableUnCLIPPipeline": unclip}


@pytest.mark.parametrize("name", PIPELINES)
def test_estimates_are_those_of_exhaustive_measurements(name: str, tmp_path: Path) -> None:
    pipe, conditions, generation = PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    subject = replace(subject_of(pipe, generation), conditions=conditions, metrics=("nsr",))
    found = {}
    options: dict[str, Any] = {"schemes": ("w4a8",), "checks": 0, "timesteps": 2, "probes": 32, "part": "2/12"}
    for method in ("probes", "exhaustive"):
        out = bitplan.profile(subject, tmp_path / f"{method}.profile", method=method, **options)
        with open_profile(out) as store:
            found[method] = {m.layer: m.mean for m in store.measurements() if m.source == method}
    shared = found["probes"].keys() & found["exhaustive"].keys()
    assert len(shared) > 1
    ratios = sorted(found["probes"][layer] / found["exhaustive"][layer] for layer in shared)
    assert 0.6 < ratios[len(ratios) // 2] < 1.6, ratios
