"""A denoiser and a codec as a subject, and its profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bitplan
from bitplan.planner.pipelines.subject import Subject

STEPS = 3


class Denoiser(nn.Module):
    """table: whether a layer sees one input for the whole batch; frames: rows of `known` for each sample."""

    def __init__(self, table: bool, frames: int = 1) -> None:
        super().__init__()
        self.frames = frames
        self.first, self.known, self.last = nn.Linear(6, 16), nn.Linear(4, 16), nn.Linear(16, 6)
        self.table = nn.Linear(3, 16) if table else None

    def forward(self, x: Tensor, t: Tensor, known: Tensor) -> Tensor:
        shift = 0.0 if self.table is None else self.table(torch.ones(1, 3))[0]
        each = self.known(input=known).view(len(x), self.frames, -1) * torch.linspace(1, 2, self.frames)[:, None]
        return self.last(torch.tanh(self.first(x) + each.mean(1) + shift + t))


class Codec(nn.Module):
    """Reached by a method of its own, as a VAE's decoder is."""

    def __init__(self) -> None:
        super().__init__()
        self.grow, self.out = nn.Sequential(nn.Linear(6, 12), nn.Tanh()), nn.Linear(12, 8)

    def decode(self, x: Tensor) -> Tensor:
        return self.out(self.grow(x))


def made(seed: int = 0, table: bool = False, frames: int = 1) -> Subject:
    """A sampler of three steps on a vector, between an encoder of what it is told and a decoder."""
    torch.manual_seed(seed)
    reader, codec = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)), Codec()
    denoiser = Denoiser(table, frames)

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        known = reader(torch.stack(list(conditions))).repeat_interleave(frames, 0)
        noise = [torch.randn(6, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(conditions))]
        x = torch.stack(noise)
        for i in range(STEPS):
            x = x - 0.3 * denoiser(x, torch.tensor(i / STEPS), known)
        return codec.decode(x)

    conditions = list(torch.randn(6, 5, generator=torch.Generator().manual_seed(1)))
    modules = {"reader": reader, "denoiser": denoiser, "codec": codec}
    return Subject(modules, run, conditions, "array", name="toy")


def profiled(subject: Any, out: Path, **options: Any) -> Path:
    settings: dict[str, Any] = {"schemes": ("w8a8", "w4a8", "w2a8"), "count": 4, "checks": 0, "timesteps": 2}
    return bitplan.profile(subject, out, **settings | {"components": ("reader", "denoiser", "codec")} | options)


def run_with(out: Any) -> Subject:
    return Subject({"m": nn.Linear(2, 2)}, lambda conditions, seed: out, [1, 2])
