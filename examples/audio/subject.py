"""A diffusion model of sounds of one's own, as a `Subject`: notes in, sounds out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from examples.audio.model import load, sample
from examples.audio.sounds import LENGTH, Note, draw_notes
from torch import Tensor

from bitplan import Subject


def sounds() -> Subject:
    reader, denoiser = load()

    def run(conditions: Sequence[Note], seed: int) -> Tensor:
        noise = [torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(conditions))]
        known = reader(torch.stack([note.vector() for note in conditions]))
        return sample(denoiser, known, torch.stack(noise))[:, None]

    def conditions(count: int, held_out: bool) -> list[Note]:
        return draw_notes(count, seed=1 + held_out)

    return Subject({"reader": reader, "denoiser": denoiser}, run, conditions, output="audio", name="sounds")
