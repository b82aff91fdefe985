"""Train the CLIPModel: contrastive on drawn scenes, helped by reading the scene's attributes off each embedding."""

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
    """A small CLIP for 64x64 pictures in 8x8 patches and captions of 24 tokens."""
    tower = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": WIDTH, "projection_dim": WIDTH}
    end = tokenizer.eos_token_id
    text = tower | {
        "vocab_size": len(tokenizer), "intermediate_size": 4 * WIDTH, "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = tower | {"image_size": 64, "patch_size": 8, "intermediate_size": 3 * WIDTH}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def attribute_targets(scenes: list[Scene]) -> torch.Tensor:
    """(scenes, 8) class indices: size, colour, shape of each thing, where, background; -1 for a thing not there."""
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


class Tutor(nn.Module):
    """CLIP plus linear heads that read the attributes off the embeddings; the heads are dropped after training."""

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
        """(scenes, WIDTH) unit vectors."""
        tokens = tokenizer([s.caption for s in scenes], padding="max_length", truncation=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            features = self.clip.get_text_features(**tokens)
        return nn.functional.normalize(features.pooler_output.float(), dim=-1)

    def embed_image(self, pictures: torch.Tensor) -> torch.Tensor:
        """(pictures, 3, 64, 64) in -1..1 to (pictures, WIDTH) unit vectors."""
        with torch.autocast("cpu", torch.bfloat16):
            features = self.clip.get_image_features(pixel_values=pictures)
        return nn.functional.normalize(features.pooler_output.float(), dim=-1)


def text_loss(tokenizer: CLIPTokenizer):
    """First stage: each caption's embedding names the scene's attributes. Returns the loss of one fresh batch."""

    def loss(tutor: Tutor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        rng = numpy_rng(generator)
        scenes = [random_scene(rng) for _ in range(TEXT_BATCH)]
        return {"text": tutor.attribute_loss(SPREAD * tutor.embed_text(tokenizer, scenes), attribute_targets(scenes))}

    return loss


def image_loss(tokenizer: CLIPTokenizer):
    """Second stage, the text tower locked (Zhai et al. 2022, LiT, arXiv:2111.07991): contrastive both ways, and the
    picture's embedding names the attributes too. Returns the loss of one fresh batch."""

    def loss(tutor: Tutor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        scenes, pictures = scene_batch(IMAGE_BATCH, numpy_rng(generator))
        with torch.no_grad():
            text = tutor.embed_text(tokenizer, scenes)
        image = tutor.embed_image(pictures)
        logits = tutor.clip.logit_scale.clamp(max=4.6).exp() * image @ text.T
        ranks = torch.arange(len(scenes))
        return {
            "contrast": (nn.functional.cross_entropy(logits, ranks) + nn.functional.cross_entropy(logits.T, ranks)) / 2,
            "image": tutor.attribute_loss(SPREAD * image, attribute_targets(scenes)),
        }

    return loss


def train_clip(out: Path, seed: int) -> None:
    """Train tokenizer, text tower and vision tower; write them below `out`, the text tower as soon as it is done."""
    tokenizer = train_tokenizer(seed)
    tokenizer.save_pretrained(out / "tokenizer")
    tutor = Tutor(make_clip(tokenizer))
    tutor.clip.vision_model.requires_grad_(False)
    tutor = train(tutor, text_loss(tokenizer), TEXT_RECIPE, out / "text.ckpt", seed)
    tutor.clip.save_pretrained(out / "clip")
    tutor.requires_grad_(True)
    for part in (tutor.clip.text_model, tutor.clip.text_projection, tutor.heads):
        part.requires_grad_(False)
    tutor = train(tutor, image_loss(tokenizer), IMAGE_RECIPE, out / "vision.ckpt", seed)
    tutor.clip.save_pretrained(out / "clip")
