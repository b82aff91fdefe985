"""Trains the UNet by flow matching on latents, conditioned on the locked text tower.

Source: Lipman et al. 2023 (arXiv:2210.02747) with the straight path x_s = (1 - s) x + s n, whose velocity n - x the
model predicts (diffusers' `flow_prediction`); noise levels are drawn from a logit-normal (Esser et al. 2024,
arXiv:2403.03206, section 3.1).
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from training.checkpoint import Recipe, train
from training.clip import WIDTH
from training.data import numpy_rng, scene_batch

BATCH = 40
RECIPE = Recipe(steps=4600, rate=1e-3, average=0.9985, warmup=150, every=100)
POOL = 32_768  # encoded scenes, drawn once
DROP = 0.1  # share of captions replaced by the empty one, for classifier-free guidance
STEPS_PER_UNIT = 1000  # the model's timestep at noise level 1


def make_unet() -> UNet2DConditionModel:
    """Returns a UNet of 133 Linear and Conv2d layers on three resolutions, with attention on the lower two."""
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 128, 192), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


@torch.no_grad()
def encode_pool(vae: AutoencoderKL, path: Path, seed: int) -> tuple[list[str], torch.Tensor]:
    """Returns captions and scaled latents (POOL, 4, 16, 16) of drawn scenes, cached in `path`."""
    if path.exists():
        cache = torch.load(path, weights_only=True)
        return cache["captions"], cache["latents"]
    captions, latents = [], []
    for start in range(0, POOL, 256):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        scenes, pictures = scene_batch(256, numpy_rng(generator))
        captions += [scene.caption for scene in scenes]
        latents.append(vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor)
        print(f"encoded {start + 256}/{POOL} scenes", flush=True) if start % 4096 == 0 else None
    torch.save({"captions": captions, "latents": torch.cat(latents)}, path)
    return captions, torch.cat(latents)


def make_loss(latents: torch.Tensor, tokens: torch.Tensor, empty: torch.Tensor, text: CLIPTextModel):
    """Returns the flow-matching loss of a random batch of the pool."""

    def loss(unet: UNet2DConditionModel, generator: torch.Generator) -> dict[str, torch.Tensor]:
        rows = torch.randint(len(latents), (BATCH,), generator=generator)
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        level = torch.sigmoid(torch.randn(BATCH, generator=generator))
        mixed = torch.lerp(clean, noise, level[:, None, None, None]).contiguous(memory_format=torch.channels_last)
        dropped = torch.rand(BATCH, generator=generator) < DROP
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                condition = text(torch.where(dropped[:, None], empty, tokens[rows])).last_hidden_state
            velocity = unet(mixed, level * STEPS_PER_UNIT, condition).sample
        return {"velocity": (velocity.float() - (noise - clean)).square().mean()}

    return loss


def train_unet(out: Path, checkpoint: Path, seed: int) -> None:
    """Trains the UNet with the components of earlier stages below `out`."""
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    text = CLIPTextModel.from_pretrained(out / "clip").eval()
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    captions, latents = encode_pool(vae, out / "latents.pt", seed)
    tokens, empty = (
        tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        for texts in (captions, [""])
    )
    torch.manual_seed(seed)
    unet = make_unet().to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # over twice as fast on the CPU as the fused attention's backward pass
    model = train(unet, make_loss(latents, tokens, empty, text), RECIPE, checkpoint, seed)
    model.save_pretrained(out / "unet")
