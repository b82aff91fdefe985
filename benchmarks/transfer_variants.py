"""Variants of the UNet of `scenes` that a profile of `scenes` may or may not serve, made from a seed.

mild: more steps at a low learning rate on pictures in two colours. strong: three times the largest learning rate of
the UNet's training, on pictures with inverted colours, so that every weight changes. rescaled: the same function with
a few large channels between layers that are linear in each other (v and out, q and k, a norm and its readers, the two
halves of a feed-forward network), as merging and training can produce them, in half of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from training.checkpoint import Recipe, train
from training.data import random_scene
from training.unet import make_loss

from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.scenes import SCENES
from bitplan.planner.scenes.draw import draw_scenes
from bitplan.planner.scenes.grammar import Scene

POOL = 2048  # pictures to train on
LARGE = 40.0  # factor of an outlier channel
SHARE = 0.04  # of channels that are made outliers
MILD = Recipe(steps=200, rate=5e-5, average=0.98, warmup=20, every=50)
STRONG = Recipe(steps=300, rate=3e-3, average=0.98, warmup=50, every=50)


def two_colours(scene: Scene) -> bool:
    """Returns whether everything in the scene is red, blue or white."""
    return {scene.background, *(thing.colour for thing in scene.things)} <= {"red", "blue", "white"}


def pool(pipe: Any, keep: Callable[[Scene], bool], invert: bool, seed: int) -> tuple[list[str], torch.Tensor]:
    """Draws captions and latents."""
    rng = np.random.default_rng([seed, 11])
    scenes: list[Scene] = []
    while len(scenes) < POOL:
        scenes += [scene for scene in (random_scene(rng) for _ in range(POOL)) if keep(scene)]
    scenes = scenes[:POOL]
    pictures = torch.from_numpy(draw_scenes(scenes, rng)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        parts = (-pictures if invert else pictures).split(128)
        latents = torch.cat([pipe.vae.encode(part).latent_dist.mode() for part in parts])
    return [scene.caption for scene in scenes], latents * pipe.vae.config.scaling_factor


def trained(recipe: Recipe, keep: Callable[[Scene], bool], invert: bool, path: Path, seed: int) -> Any:
    """Returns `scenes` after more training; resumes from the checkpoint at `path`."""
    pipe = load_pipeline(SCENES)
    captions, latents = pool(pipe, keep, invert, seed)
    tokens, empty = (
        pipe.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        for texts in (captions, [""])
    )
    unet = pipe.unet.to(memory_format=torch.channels_last)
    processors = dict(unet.attn_processors)
    unet.set_attn_processor(AttnProcessor())
    unet = train(unet, make_loss(latents, tokens, empty, pipe.text_encoder), recipe, path, seed)
    unet.set_attn_processor(processors)
    pipe.unet = unet.to(memory_format=torch.contiguous_format).eval()
    return pipe


@torch.no_grad()
def rescaled(seed: int) -> Any:
    """Returns `scenes` with outlier channels in every second transformer block and the same function."""
    pipe, generator = load_pipeline(SCENES), torch.Generator().manual_seed(seed)
    blocks = [module for name, module in pipe.unet.named_modules() if name.endswith("transformer_blocks.0")]
    for block in blocks[::2]:
        for norm, attention in ((block.norm1, block.attn1), (block.norm2, block.attn2)):
            _scale(attention.to_v.weight, [attention.to_out[0].weight], generator)
            readers = [attention.to_q] + ([attention.to_k, attention.to_v] if attention is block.attn1 else [])
            _scale_norm(norm, [layer.weight for layer in readers], generator)
        gate, out = block.ff.net[0].proj, block.ff.net[2]
        hidden = out.weight.shape[1]  # the first half is multiplied by the gate, so it may be scaled
        _scale(gate.weight[:hidden], [out.weight], generator, gate.bias[:hidden])
        _scale_norm(block.norm3, [gate.weight], generator)
    return pipe


def _factors(count: int, generator: torch.Generator) -> torch.Tensor:
    """Returns (count,): 1, and LARGE for a few."""
    factors = torch.ones(count)
    factors[torch.randperm(count, generator=generator)[: max(1, round(SHARE * count))]] = LARGE
    return factors


def _scale(
    rows: torch.Tensor, readers: list[torch.Tensor], generator: torch.Generator, bias: torch.Tensor | None = None
) -> None:
    """Multiplies outputs (out, in) by the factors and divides the inputs of their readers (out, in) by them."""
    factors = _factors(len(rows), generator)
    rows *= factors[:, None]
    if bias is not None:
        bias *= factors
    for reader in readers:
        reader /= factors[None, :]


def _scale_norm(norm: nn.LayerNorm, readers: list[torch.Tensor], generator: torch.Generator) -> None:
    factors = _factors(len(norm.weight), generator)
    norm.weight *= factors
    norm.bias *= factors
    for reader in readers:
        reader /= factors[None, :]


MAKERS: dict[str, Callable[[Path, int], Any]] = {
    "mild": lambda path, seed: trained(MILD, two_colours, False, path, seed),
    "strong": lambda path, seed: trained(STRONG, lambda _: True, True, path, seed),
    "rescaled": lambda _, seed: rescaled(seed),
}


def make(name: str, folder: Path, seed: int) -> Path:
    """Returns the folder of the variant's pipeline, which is made where it is missing."""
    place = folder / name
    if not (place / "model_index.json").is_file():
        torch.manual_seed(seed)
        pipe = MAKERS[name](folder / f"{name}.ckpt", seed)
        pipe.save_pretrained(place)
    return place
