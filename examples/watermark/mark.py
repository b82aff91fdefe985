"""An invisible mark of 24 bits in pictures of `scenes`: how it is read, and the metric of the noise that a plan adds.

Bit b is the sign of a statistic p_b . r, where r is how the picture's background differs from one flat colour. The
patterns p_b are what the autoencoder's decoder makes of smooth directions of the latent that the secret key draws
(spread spectrum: Cox et al. 1997, with carriers that the model can paint: a UNet knows where it is on its coarsest
grid).

Shapes: P pictures, K bits, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from planner.scenes import PIPELINE_FOLDER
from planner.scenes.grammar import PALETTE
from sensitivity.metrics import Metric
from sensitivity.metrics.signal import random_signs

BITS = 24
CELLS = 4  # of a direction, a side: the positions that the UNet's coarsest features tell apart
NEAR = 0.12  # pixels whose colour is so far from the background's, in 0..1, count 1/e


@dataclass(frozen=True)
class Key:
    """The secret: seeds of the patterns and of the message."""

    patterns: int = 0
    message: int = 1


KEY = Key()


def directions_of(seed: int, shape: Sequence[int]) -> Tensor:
    """(K, *shape) float32 directions of a latent of that shape (channels, rows, columns): independent numbers in a grid
    of cells, without their mean, smoothly enlarged; orthonormal on the grid."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(BITS, shape[0], CELLS, CELLS, generator=generator, dtype=torch.float64)
    drawn -= drawn.mean((2, 3), keepdim=True)
    orthonormal, _ = torch.linalg.qr(drawn.flatten(1).T)
    cells = orthonormal.T.reshape(drawn.shape)
    return F.interpolate(cells, size=tuple(shape[1:]), mode="bilinear").float()


@cache
@torch.no_grad()
def patterns_of(seed: int) -> Tensor:
    """(K, C, H, W) float32, orthonormal, each channel of mean 0: the change of a flat picture along each direction.

    Mean over the colours of the palette, then the nearest orthonormal ones (Loewdin 1950).
    """
    vae = AutoencoderKL.from_pretrained(PIPELINE_FOLDER, subfolder="vae", torch_dtype=torch.float32).eval()
    side = vae.config.sample_size
    colours = torch.tensor(list(PALETTE.values()), dtype=torch.float32)[:, :, None, None] / 255
    latents = vae.encode(colours.expand(-1, -1, side, side) * 2 - 1).latent_dist.mode()
    changes = torch.stack([
        (vae.decode(latents + way).sample - vae.decode(latents - way).sample).mean(0)
        for way in directions_of(seed, latents.shape[1:])
    ]).double()  # fmt: skip
    changes -= changes.mean((2, 3), keepdim=True)
    flat = changes.flatten(1)
    values, vectors = torch.linalg.eigh(flat @ flat.T)
    return (vectors @ torch.diag(values**-0.5) @ vectors.T @ flat).reshape(changes.shape).float()


def message_of(seed: int) -> Tensor:
    """(K,) float32 signs: the bits, -1 for 0."""
    return 2.0 * torch.randint(0, 2, (BITS,), generator=torch.Generator().manual_seed(seed)) - 1


def background_of(images: Tensor) -> Tensor:
    """How far each pixel is from the background's colour, 0 where it belongs to something else: like the images.

    The background is what is near the median colour; the weights fall off so that a thing in front counts nothing.
    """
    centre = images.detach().flatten(2).median(2).values[..., None, None]
    weights = torch.exp(-((images - centre) / NEAR).square().sum(1, keepdim=True))
    colour = (weights * images).sum((2, 3), keepdim=True) / weights.sum((2, 3), keepdim=True)
    return weights * (images - colour)


def statistics_of(images: Tensor, key: Key = KEY) -> Tensor:
    """p_b . background, of (P, C, H, W) to (P, K) float64."""
    patterns = patterns_of(key.patterns).to(images.device)
    return background_of(images.double()).flatten(1) @ patterns.double().flatten(1).T


def margins_of(images: Tensor, key: Key = KEY) -> Tensor:
    """The statistics times the message's signs, (P, K): how far each bit is from being misread."""
    return statistics_of(images, key) * message_of(key.message).to(images.device)


def mark_noise(full: Tensor, variant: Tensor) -> Tensor:
    """Noise power on a statistic, the mean over bits of its squared change: (P, C, H, W) twice to (P,) float64."""
    return (statistics_of(variant) - statistics_of(full)).square().mean(1)


def mark_probe(full: Tensor, generator: torch.Generator) -> Tensor:
    """The gradient of sum over b of e_b statistic_b / root K, with random signs e_b: the square of v.d is, on average,
    `mark_noise` of a small change d. Like `full`."""
    with torch.enable_grad():
        images = full.detach().double().requires_grad_()
        statistics = statistics_of(images)
        signs = random_signs(statistics, generator)
        (weights,) = torch.autograd.grad((signs * statistics).sum() / BITS**0.5, images)
    return weights.float()


MARK = Metric(
    "mark", "own", "images", "noise power on a bit of the watermark", mark_noise, symmetric=True, probe=mark_probe
)
