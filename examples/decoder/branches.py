"""Two branches that read voxels: ridge regressions to the text states and to the latents of the pipeline `scenes`.

They are fitted in closed form at first use and cached in a file of the user's cache folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from examples.decoder.voxels import NOISE, VOXELS, record
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

COUNT = 600  # number of scenes for fitting
RIDGE = 0.01  # penalty for each scene, relative to the mean variance of a voxel
PORTION = 50


class Branch(nn.Module):
    """A linear map from voxels to a tensor of a given shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.linear = nn.Linear(VOXELS, torch.Size(shape).numel())

    def forward(self, voxels: Tensor) -> Tensor:
        return self.linear(voxels).unflatten(1, self.shape)


def branches_for(pipe: Any, count: int = COUNT) -> dict[str, Branch]:
    """Returns both branches from the cache, or fitted on `count` scenes.

    `semantic` predicts the states of the text encoder for the caption, (tokens, width); `low` predicts blurry latents
    of the picture, (C, H, W).
    """
    tokens, width = pipe.text_encoder.config.max_position_embeddings, pipe.unet.config.cross_attention_dim
    side = pipe.unet.config.sample_size
    branches = {"semantic": Branch((tokens, width)), "low": Branch((pipe.unet.config.in_channels, side, side))}
    file = cache_folder() / f"decoder-{count}-{VOXELS}-{NOISE}-{RIDGE}.safetensors"
    if not file.is_file():
        _save(_fit(pipe, count), file)
    stored = load_file(file)
    for name, branch in branches.items():
        branch.linear.load_state_dict({key: stored[f"{name}.{key}"] for key in ("weight", "bias")})
        branch.eval().requires_grad_(False)
    return branches


def cache_folder() -> Path:
    """Returns the folder of fitted branches; the variable `XDG_CACHE_HOME` changes it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitplan"


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes the file whole or not at all, since another process may read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, part)
    part.replace(file)


@torch.no_grad()
def _fit(pipe: Any, count: int) -> dict[str, Tensor]:
    recording = record(count, seed=0)
    portions = [slice(at, at + PORTION) for at in range(0, count, PORTION)]
    captions = [scene.caption for scene in recording.scenes]
    states = torch.cat([encode_texts(pipe, captions[part]) for part in portions])
    latents = torch.cat([
        pipe.vae.encode(recording.pictures[part] * 2 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
        for part in portions
    ])  # fmt: skip
    return {
        f"{name}.{key}": value
        for name, targets in (("semantic", states), ("low", latents))
        for key, value in zip(("weight", "bias"), ridge(recording.voxels, targets.flatten(1)), strict=True)
    }


def encode_texts(pipe: Any, texts: Sequence[str]) -> Tensor:
    """Returns the states of the pipeline's text encoder, (P, tokens, width)."""
    length = pipe.text_encoder.config.max_position_embeddings
    tokens = pipe.tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt")
    return pipe.text_encoder(tokens.input_ids)[0]


def ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Fits weight (M, N) and bias (M,) from inputs (P, N) to targets (P, M) by ridge regression."""
    means = inputs.mean(0), targets.mean(0)
    x, y = (inputs - means[0]).double(), (targets - means[1]).double()
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, x.T @ y).T.float().contiguous()
    return weight, means[1] - weight @ means[0]
