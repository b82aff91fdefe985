"""A small diffusion model of sounds in plain torch: a mixer of the waveform's frames.

The flow follows straight lines from noise to sound (Liu et al. 2023, Lipman et al. 2023). The denoiser predicts the
sound, from which the velocity of the flow follows.
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
SCALE = 6.0  # amplitude of the model's sounds for sounds in -1..1
STEPS = 8
WEIGHTS = Path(__file__).parent / "denoiser.safetensors"


class Reader(nn.Module):
    """Embeds a note's vector for the denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(NOTES + 2, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, notes: Tensor) -> Tensor:
        return self.last(nn.functional.silu(self.first(notes)))


class Mixer(nn.Module):
    """Mixes the frames, then the channels of each frame; the condition scales the inputs and hidden values."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.modulation = nn.Linear(WIDTH, 4 * WIDTH + 2 * FRAMES)
        self.along, self.back = nn.Linear(FRAMES, 2 * FRAMES), nn.Linear(2 * FRAMES, FRAMES)
        self.grow, self.shrink = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        first, second, wide, frames = self.modulation(condition)[:, None].split(
            [WIDTH, WIDTH, 2 * WIDTH, 2 * FRAMES], -1
        )
        y = (self.norms[0](x) * (1 + first)).transpose(1, 2)
        x = x + self.back(self.along(y) * (1 + frames)).transpose(1, 2)
        y = self.grow(self.norms[1](x) * (1 + second))
        return x + self.shrink(nn.functional.gelu(y) * (1 + wide))


class Denoiser(nn.Module):
    """Predicts the sound from a mixture of sound and noise."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.time = nn.Linear(16, WIDTH)
        self.inward, self.outward = nn.Linear(FRAME, WIDTH), nn.Linear(WIDTH, FRAME)
        self.place = nn.Parameter(torch.zeros(FRAMES, WIDTH))
        self.blocks = nn.ModuleList(Mixer() for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Returns (B, LENGTH). x: (B, LENGTH); time: (B,), 0 for noise, 1 for sound; condition: (B, WIDTH)."""
        angle = time[:, None] * 2.0 ** torch.arange(8) * (math.pi / 4)
        condition = nn.functional.silu(condition + self.time(torch.cat([angle.sin(), angle.cos()], 1)))
        x = self.inward(x.unflatten(1, (FRAMES, FRAME))) + self.place
        for block in self.blocks:
            x = block(x, condition)
        return self.outward(self.norm(x)).flatten(1)


def sample(denoiser: nn.Module, condition: Tensor, noise: Tensor) -> Tensor:
    """Returns sounds (B, LENGTH) in -1..1 from noise (B, LENGTH) by `STEPS` Euler steps along the flow."""
    x = noise
    for step in range(STEPS):
        time = step / STEPS
        sound = denoiser(x, torch.full((len(x),), time), condition)
        x = x + (sound - x) / (1 - time) / STEPS
    return x / SCALE


def load() -> tuple[Reader, Denoiser]:
    """Loads the trained model."""
    reader, denoiser = Reader(), Denoiser()
    stored = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    for name, module in (("reader", reader), ("denoiser", denoiser)):
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(f"{name}.")})
        module.eval().requires_grad_(False)
    return reader, denoiser
