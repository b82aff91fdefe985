"""Metrics of an encoder of images and texts: similarity to the prompt, and drift from the full-precision image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from bitplan.sensitivity.metrics.base import loss_by_frame, probe_by_frame
from bitplan.sensitivity.metrics.signs import random_signs


@dataclass(frozen=True)
class Encoder:
    """An encoder of images and texts into one space.

    Attributes:
        image: (N, 3, H, W) in 0..1 to (N, D) unit vectors.
        text: N strings to (N, D) unit vectors.
    """

    image: Callable[[torch.Tensor], torch.Tensor]
    text: Callable[[Sequence[str]], torch.Tensor]


def embed(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """Unit embeddings of images, (P, 3, H, W) to (P, D), or of all frames, (P, F, 3, H, W) to (P, F, D)."""
    if images.dim() == 4:
        return encoder.image(images)
    return encoder.image(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def similarity(embeds: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Cosine of each image, or the mean over the frames of each video, with its prompt.

    Unit (P, D) or (P, F, D) and (P, D) to (P,) float64.
    """
    texts = texts.to(embeds.device).double()
    cosines = (embeds.double() * (texts if embeds.dim() == 2 else texts[:, None])).sum(-1)
    return cosines.view(len(texts), -1).mean(1)


def clip_drop(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """cos(text, full image) - cos(text, variant's image), from `similarity` (P,) twice to (P,) float64.

    It may be negative, and so may its mean, which is stored as measured; the solver clips losses at 0.
    """
    return full.double() - variant.double()


def clip_gradient(full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The gradient of the drop in the similarity: -1 for each prompt."""
    return -torch.ones_like(full)


@loss_by_frame(2)
def embed_drift(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """1 - cos(full, variant) of the image embeddings, 0..2, or the mean over the frames of each video.

    Unit (P, D) or (P, F, D) twice to (P,) float64.
    """
    # half the squared distance of unit vectors is the same number without cancellation near 0
    full, variant = F.normalize(full.double(), dim=-1), F.normalize(variant.double(), dim=-1)
    return (full - variant).square().sum(-1) / 2


@probe_by_frame(2)
def drift_probe(full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random signs over root 2 without the component along the embedding, (P, D): a unit vector cannot change there."""
    signs = random_signs(full, generator) / 2**0.5
    return signs - (signs * full).sum(-1, keepdim=True) * full


def fit_images(images: torch.Tensor, size: int) -> torch.Tensor:
    """(N, 3, H, W) to (N, 3, size, size) in 0..1: short edge to `size` (antialiased bicubic), then the centre."""
    height, width = images.shape[-2:]
    if min(height, width) != size:
        scale = size / min(height, width)
        shape = [max(size, round(height * scale)), max(size, round(width * scale))]
        images = F.interpolate(images, size=shape, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def clip_encoder(clip_model: Any, tokenizer: Any, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """The encoder of a transformers `CLIPModel` in eval mode and its tokenizer.

    Prompts that are too long for the text model are cut, as in the pipelines. Gradients flow through both models.

    Args:
        clip_model: the model.
        tokenizer: its tokenizer.
        mean, std: one number a channel that the image processor subtracts and divides by, for pixels in 0..1.
    """
    size = int(clip_model.config.vision_config.image_size)
    length = int(clip_model.config.text_config.max_position_embeddings)

    def image(images: torch.Tensor) -> torch.Tensor:
        shift, scale = (
            torch.tensor(x, dtype=torch.float32, device=clip_model.device).view(-1, 1, 1) for x in (mean, std)
        )
        pixels = (fit_images(images.to(clip_model.device).float(), size) - shift) / scale
        return _unit(clip_model.get_image_features(pixel_values=pixels.to(clip_model.dtype)))

    def text(prompts: Sequence[str]) -> torch.Tensor:
        tokens = tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).to(clip_model.device)
        mask = tokens.get("attention_mask")
        return _unit(clip_model.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask))

    return Encoder(image, text)


def _unit(features: Any) -> torch.Tensor:
    """Projected features, (N, D), as float32 unit vectors; transformers 5 wraps them in an output, 4 does not."""
    return F.normalize(getattr(features, "pooler_output", features).float(), dim=-1)
