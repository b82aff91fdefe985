"""Trains the model of sounds from a seed, in minutes on one CPU core.

python -m examples.audio.train --out examples/audio/denoiser.safetensors
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from examples.audio.model import SCALE, WEIGHTS, Denoiser, Reader, sample
from examples.audio.sounds import LENGTH, NOTES, detect_pitch, draw_notes, play
from safetensors.torch import save_file
from torch import Tensor, nn

COUNT, BATCH, RATE, WARM_UP = 3000, 48, 4e-3, 100
DECAY = 0.998  # of the moving average of the weights, for each step


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws conditions (B, NOTES + 2) and sounds (B, LENGTH) at the model's scale."""
    pitch = torch.randint(NOTES, (BATCH,), generator=generator)
    timbre = torch.rand(BATCH, 2, generator=generator) * 2 - 1
    conditions = torch.cat([nn.functional.one_hot(pitch, NOTES), timbre], 1)
    return conditions, SCALE * play(conditions, torch.pi / 2 * torch.rand(BATCH, generator=generator))


def train(count: int) -> nn.ModuleDict:
    """Returns the moving average of the weights after `count` batches."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = nn.ModuleDict({"reader": Reader(), "denoiser": Denoiser()})
    mean = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY))
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    for step in range(count):
        share = max(step - WARM_UP, 0) / max(count - WARM_UP, 1)
        optimiser.param_groups[0]["lr"] = RATE * min((step + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * share))
        conditions, sounds = batch(generator)
        time = torch.rand(BATCH, generator=generator)
        noise = torch.randn(BATCH, LENGTH, generator=generator)
        noisy = torch.lerp(noise, sounds, time[:, None])
        loss = (model["denoiser"](noisy, time, model["reader"](conditions)) - sounds).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean.update_parameters(model)
        if step % 200 == 199:
            print(f"{step + 1}: loss {loss:.4f}, pitch detected {accuracy(mean.module):.0%}", flush=True)
    return mean.module


@torch.no_grad()
def accuracy(model: nn.ModuleDict, count: int = 48) -> float:
    """Returns the share of notes whose pitch is detected in the generated sounds."""
    notes = draw_notes(count, seed=5)
    noise = torch.randn(count, LENGTH, generator=torch.Generator().manual_seed(6))
    sounds = sample(model["denoiser"], model["reader"](torch.stack([note.vector() for note in notes])), noise)
    return float((detect_pitch(sounds) == torch.tensor([note.pitch for note in notes])).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=COUNT, help="batches")
    args = parser.parse_args()
    model = train(args.count)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
