"""The diffusion model of sounds as a `Subject`: conditions are notes, outputs are sounds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from examples.audio.model import load, sample
from examples.audio.sounds import LENGTH, Note, draw_notes
from torch import Tensor

from bitplan import Subject


def sounds() -> Subject:
    """Returns the subject with the trained model."""
    reader, denoiser = load()

    def run(conditions: Sequence[Note], seed: int) -> Tensor:
        noise = [torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(conditions))]
        condition = reader(torch.stack([note.vector() for note in conditions]))
        return sample(denoiser, condition, torch.stack(noise))[:, None]

    def conditions(count: int, held_out: bool) -> list[Note]:
        return draw_notes(count, seed=1 + held_out)

    return Subject({"reader": reader, "denoiser": denoiser}, run, conditions, output="audio", name="sounds")
