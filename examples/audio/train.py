"""Train the model of sounds: minutes on one CPU core, from a seed.

python -m examples.audio.train --out examples/audio/denoiser.safetensors
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from examples.audio.model import SCALE, WEIGHTS, Denoiser, Reader, sample
from examples.audio.sounds import LENGTH, NOTES, draw_notes, heard, play
from safetensors.torch import save_file
from torch import Tensor, nn

COUNT, BATCH, RATE, WARM_UP = 3000, 48, 4e-3, 100
KEPT = 0.998  # of the running mean of the weights, at each step


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Conditions (B, NOTES + 2) and sounds (B, LENGTH) of the model's scale."""
    pitch = torch.randint(NOTES, (BATCH,), generator=generator)
    timbre = torch.rand(BATCH, 2, generator=generator) * 2 - 1
    known = torch.cat([nn.functional.one_hot(pitch, NOTES), timbre], 1)
    return known, SCALE * play(known, torch.pi / 2 * torch.rand(BATCH, generator=generator))


def train(count: int) -> nn.ModuleDict:
    """The running mean of the weights after `count` batches."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = nn.ModuleDict({"reader": Reader(), "denoiser": Denoiser()})
    mean = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(KEPT))
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    for step in range(count):
        share = max(step - WARM_UP, 0) / max(count - WARM_UP, 1)
        optimiser.param_groups[0]["lr"] = RATE * min((step + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * share))
        known, sounds = batch(generator)
        time = torch.rand(BATCH, generator=generator)
        noise = torch.randn(BATCH, LENGTH, generator=generator)
        noisy = torch.lerp(noise, sounds, time[:, None])
        loss = (model["denoiser"](noisy, time, model["reader"](known)) - sounds).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean.update_parameters(model)
        if step % 200 == 199:
            print(f"{step + 1}: loss {loss:.4f}, pitch found {found(mean.module):.0%}", flush=True)
    return mean.module


@torch.no_grad()
def found(model: nn.ModuleDict, count: int = 48) -> float:
    """Share of notes whose pitch is heard in what the model makes of them."""
    notes = draw_notes(count, seed=5)
    noise = torch.randn(count, LENGTH, generator=torch.Generator().manual_seed(6))
    sounds = sample(model["denoiser"], model["reader"](torch.stack([note.vector() for note in notes])), noise)
    return float((heard(sounds) == torch.tensor([note.pitch for note in notes])).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=COUNT, help="batches")
    args = parser.parse_args()
    model = train(args.count)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
