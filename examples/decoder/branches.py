"""The two branches from voxels: ridge regressions onto what the pipeline `scenes` reads and what it paints.

They are fitted when they are first needed, in closed form, and kept in a file of the user's cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from examples.decoder.voxels import NOISE, VOXELS, see
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

COUNT = 600  # scenes that the branches are fitted on
RIDGE = 0.01  # of the mean variance of a voxel, a scene
PORTION = 50


class Branch(nn.Module):
    """Voxels to a tensor of some shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.linear = nn.Linear(VOXELS, torch.Size(shape).numel())

    def forward(self, voxels: Tensor) -> Tensor:
        return self.linear(voxels).unflatten(1, self.shape)


def branches_for(pipe: Any, count: int = COUNT) -> dict[str, Branch]:
    """`semantic`: to the states of the pipeline's text encoder (tokens, width) for the caption; `low`: to the latents
    (C, H, W) of the picture, which come out blurry. From the cache, or fitted on `count` scenes."""
    tokens, width = pipe.text_encoder.config.max_position_embeddings, pipe.unet.config.cross_attention_dim
    side = pipe.unet.config.sample_size
    made = {"semantic": Branch((tokens, width)), "low": Branch((pipe.unet.config.in_channels, side, side))}
    file = cache_folder() / f"decoder-{count}-{VOXELS}-{NOISE}-{RIDGE}.safetensors"
    if not file.is_file():
        _save(_fitted(pipe, count), file)
    stored = load_file(file)
    for name, branch in made.items():
        branch.linear.load_state_dict({key: stored[f"{name}.{key}"] for key in ("weight", "bias")})
        branch.eval().requires_grad_(False)
    return made


def cache_folder() -> Path:
    """Where fitted branches are kept; `XDG_CACHE_HOME` names another place."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitplan"


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    """Whole or not at all: another process may be about to read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, part)
    part.replace(file)


@torch.no_grad()
def _fitted(pipe: Any, count: int) -> dict[str, Tensor]:
    seen = see(count, seed=0)
    portions = [slice(at, at + PORTION) for at in range(0, count, PORTION)]
    captions = [scene.caption for scene in seen.scenes]
    states = torch.cat([read(pipe, captions[part]) for part in portions])
    latents = torch.cat([
        pipe.vae.encode(seen.pictures[part] * 2 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
        for part in portions
    ])  # fmt: skip
    return {
        f"{name}.{key}": value
        for name, wanted in (("semantic", states), ("low", latents))
        for key, value in zip(("weight", "bias"), ridge(seen.voxels, wanted.flatten(1)), strict=True)
    }


def read(pipe: Any, texts: Sequence[str]) -> Tensor:
    """(P, tokens, width): what the pipeline's text encoder makes of the texts."""
    length = pipe.text_encoder.config.max_position_embeddings
    tokens = pipe.tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt")
    return pipe.text_encoder(tokens.input_ids)[0]


def ridge(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The weight and bias that make `wanted` (P, M) of `given` (P, N) with least squared error and small weights."""
    means = given.mean(0), wanted.mean(0)
    x, y = (given - means[0]).double(), (wanted - means[1]).double()
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, x.T @ y).T.float().contiguous()
    return weight, means[1] - weight @ means[0]
