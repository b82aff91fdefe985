"""A small diffusion model of sounds, of no library's class: frames of the waveform, mixed along and across.

The flow goes along straight lines from noise to sound (Liu et al. 2023, Lipman et al. 2023); the denoiser foresees the
sound, and the flow's velocity follows from it.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from examples.audio.sounds import LENGTH, NOTES
from safetensors.torch import load_file
from torch import Tensor, nn

FRAME, FRAMES = 64, LENGTH // 64  # samples of a frame, frames of a sound
WIDTH = 76
SCALE = 6.0  # sounds of the model's own scale over those in -1..1
STEPS = 8
WEIGHTS = Path(__file__).parent / "denoiser.safetensors"


class Reader(nn.Module):
    """What it is to be: a note's vector, as numbers for the denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(NOTES + 2, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, known: Tensor) -> Tensor:
        return self.last(nn.functional.silu(self.first(known)))


class Mixer(nn.Module):
    """Mixes frames, then the numbers of each frame; the condition weighs what is mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.told = nn.Linear(WIDTH, 4 * WIDTH + 2 * FRAMES)
        self.along, self.back = nn.Linear(FRAMES, 2 * FRAMES), nn.Linear(2 * FRAMES, FRAMES)
        self.grow, self.shrink = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        first, second, wide, frames = self.told(known)[:, None].split([WIDTH, WIDTH, 2 * WIDTH, 2 * FRAMES], -1)
        y = (self.norms[0](x) * (1 + first)).transpose(1, 2)
        x = x + self.back(self.along(y) * (1 + frames)).transpose(1, 2)
        y = self.grow(self.norms[1](x) * (1 + second))
        return x + self.shrink(nn.functional.gelu(y) * (1 + wide))


class Denoiser(nn.Module):
    """What sound is beneath the noise."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.time = nn.Linear(16, WIDTH)
        self.inward, self.outward = nn.Linear(FRAME, WIDTH), nn.Linear(WIDTH, FRAME)
        self.place = nn.Parameter(torch.zeros(FRAMES, WIDTH))
        self.blocks = nn.ModuleList(Mixer() for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, time: Tensor, known: Tensor) -> Tensor:
        """x: (B, LENGTH); time: (B,), 0 at noise and 1 at sound; known: (B, WIDTH) of the reader."""
        angle = time[:, None] * 2.0 ** torch.arange(8) * (math.pi / 4)
        known = nn.functional.silu(known + self.time(torch.cat([angle.sin(), angle.cos()], 1)))
        x = self.inward(x.unflatten(1, (FRAMES, FRAME))) + self.place
        for block in self.blocks:
            x = block(x, known)
        return self.outward(self.norm(x)).flatten(1)


def sample(denoiser: nn.Module, known: Tensor, noise: Tensor) -> Tensor:
    """(B, LENGTH) in -1..1, from noise (B, LENGTH), by `STEPS` steps of Euler's along the flow."""
    x = noise
    for step in range(STEPS):
        time = step / STEPS
        sound = denoiser(x, torch.full((len(x),), time), known)
        x = x + (sound - x) / (1 - time) / STEPS
    return x / SCALE


def load() -> tuple[Reader, Denoiser]:
    """The trained model."""
    reader, denoiser = Reader(), Denoiser()
    stored = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    for name, module in (("reader", reader), ("denoiser", denoiser)):
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(f"{name}.")})
        module.eval().requires_grad_(False)
    return reader, denoiser
