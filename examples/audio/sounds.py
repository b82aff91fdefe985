"""The data of the example: short notes of four partials, their conditions, and a pitch detector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RATE = 8000  # samples a second
LENGTH = 2048  # samples: 0.256 s
NOTES = 12  # semitones of one octave
LOWEST = 220.0  # Hz
PARTIALS = 4
LOUD = 0.9  # the largest peak of a sound, of full scale
QUIET = 0.05  # of full scale: a sound whose first half has a smaller root mean square has no pitch


@dataclass(frozen=True)
class Note:
    """One note.

    Attributes:
        pitch: semitones above `LOWEST`.
        brightness: loudness of the upper partials, 0..1.
        decay: speed of fading, 0..1; the sound fades by e within its length at 0 and by e^8 at 1.
    """

    pitch: int
    brightness: float
    decay: float

    def vector(self) -> Tensor:
        """Returns the condition of the model, (NOTES + 2,)."""
        vector = torch.zeros(NOTES + 2)
        vector[self.pitch], vector[NOTES], vector[NOTES + 1] = 1.0, self.brightness * 2 - 1, self.decay * 2 - 1
        return vector


def frequency(pitch: int) -> float:
    """Returns the frequency in Hz."""
    return float(LOWEST * 2 ** (pitch / NOTES))


def draw_notes(count: int, seed: int) -> list[Note]:
    """Draws notes: all pitches equally often, in turn, with random timbre and envelope."""
    uniform = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)).tolist()
    return [Note(i * 7 % NOTES, brightness, decay) for i, (brightness, decay) in enumerate(uniform)]


def play(conditions: Tensor, phase: Tensor) -> Tensor:
    """Returns sounds (B, LENGTH) in -1..1. conditions: (B, NOTES + 2); phase: (B,), of the oscillators in radians."""
    time = torch.arange(LENGTH) / RATE
    pitch, timbre = conditions[:, :NOTES].argmax(1), conditions[:, NOTES:] / 2 + 0.5
    angle = 2 * torch.pi * (LOWEST * 2 ** (pitch / NOTES))[:, None] * time + phase[:, None]
    partial = torch.arange(1, PARTIALS + 1)
    loud = (0.25 + 0.65 * timbre[:, :1]) ** (partial - 1)  # (B, PARTIALS)
    waves = torch.sin(angle[:, None] * partial[:, None])
    attack = (time / 0.008).clamp(max=1)
    fade = torch.exp(-(1 + 7 * timbre[:, 1:]) * time * RATE / LENGTH)
    return LOUD * attack * fade * (loud[..., None] / loud.sum(1)[:, None, None] * waves).sum(1)


def detect_pitch(sounds: Tensor) -> Tensor:
    """Returns the pitch of each sound, (B,): the one whose partials have the most power; -1 where it is too quiet.

    sounds: (B, LENGTH).
    """
    window = torch.hann_window(LENGTH, periodic=False)
    power = torch.fft.rfft(sounds.double() * window, 4 * LENGTH).abs().square()
    scores = []
    for pitch in range(NOTES):
        bins = [round(frequency(pitch) * k * 4 * LENGTH / RATE) for k in range(1, PARTIALS + 1)]
        scores.append(torch.stack([power[:, b - 3 : b + 4].amax(1).sqrt() for b in bins]).sum(0))
    quiet = sounds[:, : LENGTH // 2].square().mean(1).sqrt() < QUIET
    return torch.stack(scores, 1).argmax(1).masked_fill(quiet, -1)
