"""Trains the CLIPModel by a contrastive loss on drawn scenes and by predicting attributes from each embedding."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from bitplan.planner.scenes.grammar import COLOURS, PLACES, RELATIONS, SHAPES, SIZES, Scene
from training.checkpoint import Recipe, train
from training.data import numpy_rng, random_scene, scene_batch
from training.tokenizer import LENGTH, train_tokenizer

WIDTH = 128  # of the shared embedding and of the text tower
TEXT_BATCH, IMAGE_BATCH = 128, 128
TEXT_RECIPE = Recipe(steps=1200, rate=1e-3, average=0.99, warmup=100)
IMAGE_RECIPE = Recipe(steps=1600, rate=1e-3, average=0.99, warmup=100)
SPREAD = 11  # about the square root of WIDTH: gives the attribute heads inputs of unit variance
WHERE = (*PLACES, *RELATIONS)
SLOTS = (len(SIZES), len(COLOURS), len(SHAPES))


def make_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Returns a small CLIP for 64x64 pictures in 8x8 patches and captions of 24 tokens."""
    tower = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": WIDTH, "projection_dim": WIDTH}
    end = tokenizer.eos_token_id
    text = tower | {
        "vocab_size": len(tokenizer), "intermediate_size": 4 * WIDTH, "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = tower | {"image_size": 64, "patch_size": 8, "intermediate_size": 3 * WIDTH}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def attribute_targets(scenes: list[Scene]) -> torch.Tensor:
    """Returns class indices (scenes, 8): size, colour, shape of two objects, place, background; -1 if absent."""
    rows = []
    for scene in scenes:
        row = []
        for slot in range(2):
            thing = scene.things[slot] if slot < len(scene.things) else None
            row += (
                [SIZES.index(thing.size), COLOURS.index(thing.colour), SHAPES.index(thing.shape)] if thing else [-1] * 3
            )
        rows.append([*row, WHERE.index(scene.where), COLOURS.index(scene.background)])
    return torch.tensor(rows)


class ClipWithHeads(nn.Module):
    """A CLIP with linear heads that predict attributes from the embeddings; the heads are dropped after training."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.heads = nn.ModuleList(nn.Linear(WIDTH, n) for n in (*SLOTS, *SLOTS, len(WHERE), len(COLOURS)))

    def attribute_loss(self, embedding: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = [
            nn.functional.cross_entropy(head(embedding), targets[:, i], ignore_index=-1)
            for i, head in enumerate(self.heads)
        ]
        return torch.stack(losses).mean()

    def embed_text(self, tokenizer: CLIPTokenizer, scenes: list[Scene]) -> torch.Tensor:
        """Returns unit vectors (scenes, WIDTH)."""
        tokens = tokenizer([s.caption for s in scenes], padding="max_length", truncation=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            features = self.clip.get_text_features(**tokens)
        return nn.functional.normalize(features.pooler_output.float(), dim=-1)

    def embed_image(self, pictures: torch.Tensor) -> torch.Tensor:
        """Returns unit vectors (pictures, WIDTH). pictures: (pictures, 3, 64, 64) in -1..1."""
        with torch.autocast("cpu", torch.bfloat16):
            features = self.clip.get_image_features(pixel_values=pictures)
        return nn.functional.normalize(features.pooler_output.float(), dim=-1)


def text_loss(tokenizer: CLIPTokenizer):
    """Returns the loss of the first stage: the caption's embedding predicts the scene's attributes."""

    def loss(model: ClipWithHeads, generator: torch.Generator) -> dict[str, torch.Tensor]:
        rng = numpy_rng(generator)
        scenes = [random_scene(rng) for _ in range(TEXT_BATCH)]
        return {"text": model.attribute_loss(SPREAD * model.embed_text(tokenizer, scenes), attribute_targets(scenes))}

    return loss


def image_loss(tokenizer: CLIPTokenizer):
    """Returns the loss of the second stage: contrastive in both directions, and the picture's embedding predicts the
    attributes. The text tower is locked (Zhai et al. 2022, LiT, arXiv:2111.07991)."""

    def loss(model: ClipWithHeads, generator: torch.Generator) -> dict[str, torch.Tensor]:
        scenes, pictures = scene_batch(IMAGE_BATCH, numpy_rng(generator))
        with torch.no_grad():
            text = model.embed_text(tokenizer, scenes)
        image = model.embed_image(pictures)
        logits = model.clip.logit_scale.clamp(max=4.6).exp() * image @ text.T
        ranks = torch.arange(len(scenes))
        return {
            "contrast": (nn.functional.cross_entropy(logits, ranks) + nn.functional.cross_entropy(logits.T, ranks)) / 2,
            "image": model.attribute_loss(SPREAD * image, attribute_targets(scenes)),
        }

    return loss


def train_clip(out: Path, seed: int) -> None:
    """Trains tokenizer, text tower and vision tower, and writes each below `out` when it is finished."""
    tokenizer = train_tokenizer(seed)
    tokenizer.save_pretrained(out / "tokenizer")
    model = ClipWithHeads(make_clip(tokenizer))
    model.clip.vision_model.requires_grad_(False)
    model = train(model, text_loss(tokenizer), TEXT_RECIPE, out / "text.ckpt", seed)
    model.clip.save_pretrained(out / "clip")
    model.requires_grad_(True)
    for part in (model.clip.text_model, model.clip.text_projection, model.heads):
        part.requires_grad_(False)
    model = train(model, image_loss(tokenizer), IMAGE_RECIPE, out / "vision.ckpt", seed)
    model.clip.save_pretrained(out / "clip")
