"""A tiny Stable Diffusion with random weights, of unmodified diffusers and transformers classes, and a CLIP for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from bitplan.planner.scenes import PIPELINE_FOLDER

PROMPTS = (
    "a small red circle on the left on a white background",
    "a large blue square at the top on a black background",
)
SCHEMES = ("w8a8", "w4g64ma8", "w2ma8", "w8a8t+first", "w4a4")
SETTINGS: dict[str, Any] = {"prompts": PROMPTS, "schemes": SCHEMES, "steps": 2, "timesteps": 2, "guidance": 2.0}
WIDTH, SIDE = 32, 16  # of the text tower; of a picture, in px


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(PIPELINE_FOLDER / "tokenizer")


def text_config() -> CLIPTextConfig:
    words = tokenizer()
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=words.model_max_length, projection_dim=WIDTH,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip


def build_unet() -> UNet2DConditionModel:
    """One attention block, two resolutions."""
    return UNet2DConditionModel(
        sample_size=SIDE // 2, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), mid_block_type=None,
        up_block_types=("UpBlock2D", "UpBlock2D"), cross_attention_dim=WIDTH, attention_head_dim=2,
    )  # fmt: skip


def build_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16), norm_num_groups=4, sample_size=SIDE, mid_block_add_attention=False,
        ),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        unet=build_unet(),
        scheduler=DPMSolverMultistepScheduler(
            num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_pipeline(folder: Path, seed: int = 0) -> Path:
    build_pipeline(seed).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    torch.manual_seed(1)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE,
        patch_size=8, projection_dim=WIDTH,
    )  # fmt: skip
    config = CLIPConfig(text_config=text_config().to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    CLIPModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
