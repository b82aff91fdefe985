"""The world of the example: short notes of four partials, what describes them, and how a note is heard again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RATE = 8000  # samples a second
LENGTH = 2048  # samples: 0.256 s
NOTES = 12  # semitones of one octave
LOWEST = 220.0  # Hz
PARTIALS = 4
LOUD = 0.9  # the peak of a sound at its loudest, of full scale
HEARD = 0.05  # of full scale, root mean square of the first half: what is quieter is no note


@dataclass(frozen=True)
class Note:
    """pitch: semitones above `LOWEST`; brightness: 0..1, how loud the upper partials are; decay: 0..1, how fast it
    fades, by e within the sound at 0 and by e^8 at 1."""

    pitch: int
    brightness: float
    decay: float

    def vector(self) -> Tensor:
        """(NOTES + 2,): the condition as a model reads it."""
        known = torch.zeros(NOTES + 2)
        known[self.pitch], known[NOTES], known[NOTES + 1] = 1.0, self.brightness * 2 - 1, self.decay * 2 - 1
        return known


def frequency(pitch: int) -> float:
    """Hz."""
    return float(LOWEST * 2 ** (pitch / NOTES))


def draw_notes(count: int, seed: int) -> list[Note]:
    """Every pitch as often as the others, in turn; timbre and envelope at random."""
    drawn = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)).tolist()
    return [Note(i * 7 % NOTES, brightness, decay) for i, (brightness, decay) in enumerate(drawn)]


def play(known: Tensor, phase: Tensor) -> Tensor:
    """(B, LENGTH) in -1..1: the sounds of conditions (B, NOTES + 2) whose oscillators start at `phase` (B,) radians."""
    time = torch.arange(LENGTH) / RATE
    pitch, timbre = known[:, :NOTES].argmax(1), known[:, NOTES:] / 2 + 0.5
    angle = 2 * torch.pi * (LOWEST * 2 ** (pitch / NOTES))[:, None] * time + phase[:, None]
    partial = torch.arange(1, PARTIALS + 1)
    loud = (0.25 + 0.65 * timbre[:, :1]) ** (partial - 1)  # (B, PARTIALS)
    waves = torch.sin(angle[:, None] * partial[:, None])
    attack = (time / 0.008).clamp(max=1)
    fade = torch.exp(-(1 + 7 * timbre[:, 1:]) * time * RATE / LENGTH)
    return LOUD * attack * fade * (loud[..., None] / loud.sum(1)[:, None, None] * waves).sum(1)


def heard(sounds: Tensor) -> Tensor:
    """(B,): the pitch found in the spectrum of each sound (B, LENGTH), -1 where there is next to nothing to hear.

    The pitch whose partials hold the most of the power at frequencies of partials.
    """
    window = torch.hann_window(LENGTH, periodic=False)
    power = torch.fft.rfft(sounds.double() * window, 4 * LENGTH).abs().square()
    found = []
    for pitch in range(NOTES):
        bins = [round(frequency(pitch) * k * 4 * LENGTH / RATE) for k in range(1, PARTIALS + 1)]
        found.append(torch.stack([power[:, b - 3 : b + 4].amax(1).sqrt() for b in bins]).sum(0))
    quiet = sounds[:, : LENGTH // 2].square().mean(1).sqrt() < HEARD
    return torch.stack(found, 1).argmax(1).masked_fill(quiet, -1)
