"""Writes the trained components into the package data in half precision: the pipeline and its CLIP."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from bitplan.planner.scenes import CLIP_FOLDER, PIPELINE_FOLDER


def make_scheduler() -> DPMSolverMultistepScheduler:
    """Returns a second-order solver for the UNet's straight path; 8 steps suffice."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0,
        algorithm_type="dpmsolver++", solver_order=2, steps_offset=1,
    )  # fmt: skip


def export_pipeline(out: Path, pipeline: Path = PIPELINE_FOLDER, clip: Path = CLIP_FOLDER) -> None:
    """Writes both folders from the trained components below `out`."""
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float16),
        text_encoder=CLIPTextModel.from_pretrained(out / "clip", dtype=torch.float16),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel.from_pretrained(out / "unet", torch_dtype=torch.float16),
        scheduler=make_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(pipeline)
    CLIPModel.from_pretrained(out / "clip", dtype=torch.float16).save_pretrained(clip)
    tokenizer.save_pretrained(clip)
    CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(clip)
