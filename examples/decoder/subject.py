"""The two-branch image decoder as a `Subject`: conditions are voxels, outputs are pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from examples.decoder.branches import COUNT, branches_for, encode_texts
from examples.decoder.voxels import record
from torch import Tensor

from bitplan import Subject
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.scenes import SCENES

STEPS, STRENGTH, GUIDANCE = 6, 0.75, 2.5  # strength: the share of noise at the sampler's start


def decoder(count: int = COUNT) -> Subject:
    """Returns the subject. count: number of scenes that the branches are fitted on."""
    pipe = load_pipeline(SCENES)
    unet, vae, branches = pipe.unet, pipe.vae, branches_for(pipe, count)
    empty = encode_texts(pipe, [""]).detach()
    levels = torch.linspace(STRENGTH, 0, STEPS + 1)

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        voxels = torch.stack(list(conditions))
        states = torch.cat([empty.expand(len(voxels), -1, -1), branches["semantic"](voxels)])
        blurry = branches["low"](voxels)
        noise = [
            torch.randn(blurry[0].shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(voxels))
        ]
        x = torch.lerp(blurry, torch.stack(noise), STRENGTH)
        for level, following in zip(levels, levels[1:], strict=False):
            plain, guided = unet(torch.cat([x, x]), level * 1000, encoder_hidden_states=states).sample.chunk(2)
            x = x + (following - level) * (plain + GUIDANCE * (guided - plain))
        return (vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)

    def conditions(count: int, held_out: bool) -> list[Tensor]:
        return list(record(count, seed=1, held_out=held_out).voxels)

    modules = {**branches, "unet": unet, "vae": vae}
    return Subject(modules, run, conditions, "images", ("nsr", "dssim", "pixcorr"), name="decoder")
