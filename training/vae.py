"""Trains the AutoencoderKL: 64x64 pictures to 4x16x16 latents."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

from training.checkpoint import Recipe
from training.data import numpy_rng, scene_batch

BATCH = 16
RECIPE = Recipe(steps=1500, rate=2e-3, average=0.998, warmup=100, decay=0.0)
KL_WEIGHT = 2e-4  # keeps the latents smooth and near unit scale without a visible loss


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=64,
        mid_block_add_attention=False,
    )  # fmt: skip


def loss(vae: AutoencoderKL, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Returns absolute and squared error of the picture, and the latents' divergence from a unit normal."""
    _, pictures = scene_batch(BATCH, numpy_rng(generator))
    posterior = vae.encode(pictures).latent_dist
    error = vae.decode(posterior.sample(generator)).sample - pictures
    return {
        "absolute": error.abs().mean(),
        "square": 4 * error.square().mean(),
        "divergence": KL_WEIGHT * posterior.kl().mean() / 256,
    }


@torch.no_grad()
def measure_scale(vae: AutoencoderKL, seed: int) -> float:
    """Returns 1 / standard deviation of the latents, the pipeline's scaling_factor."""
    _, pictures = scene_batch(256, numpy_rng(torch.Generator().manual_seed(seed)))
    return float(1 / vae.encode(pictures).latent_dist.mode().std())
