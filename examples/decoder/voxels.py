"""The world of the example: scenes that someone sees, and what a brain of fixed random weights answers.

Early voxels see patches of the picture, late ones what things there are: each a random projection of that through tanh,
with noise. Nothing else reaches the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitplan.planner.scenes.draw import draw_scene
from bitplan.planner.scenes.grammar import COLOURS, HELD_OUT, PLACES, SHAPES, SIZES, TRAIN, Scene, sample_scene

EARLY, LATE = 128, 128  # voxels
VOXELS = EARLY + LATE
PATCHES = 8  # a side of the picture, as early voxels see it
NOISE = 0.15  # of a voxel, whose answers are in -1..1


@dataclass(frozen=True, eq=False)
class Seen:
    """Scenes, their pictures (P, 3, 64, 64) in 0..1, and the answers to them (P, VOXELS)."""

    scenes: tuple[Scene, ...]
    pictures: Tensor
    voxels: Tensor


def see(count: int, seed: int, held_out: bool = False) -> Seen:
    """Scenes of one thing each, drawn and answered. held_out: with things that are in no other scene."""
    rng = np.random.default_rng([seed, held_out])
    scenes = tuple(sample_scene(rng, 1, HELD_OUT if held_out else TRAIN) for _ in range(count))
    pictures = torch.from_numpy(np.stack([draw_scene(scene, rng) for scene in scenes])).permute(0, 3, 1, 2).float()
    noise = torch.from_numpy(rng.normal(0, NOISE, (count, VOXELS))).float()
    return Seen(scenes, pictures.contiguous(), answers(pictures, scenes) + noise)


def answers(pictures: Tensor, scenes: tuple[Scene, ...]) -> Tensor:
    """(P, VOXELS) without noise."""
    patches = torch.nn.functional.adaptive_avg_pool2d(pictures, PATCHES).flatten(1) * 2 - 1
    named = torch.stack([_named(scene) for scene in scenes])
    weights = np.random.default_rng(0)
    early, late = (
        torch.from_numpy(weights.normal(0, spread, (many, voxels))).float()
        for many, voxels, spread in ((patches.shape[1], EARLY, 0.08), (named.shape[1], LATE, 0.4))
    )
    return torch.cat([torch.tanh(patches @ early), torch.tanh(named @ late)], 1)


def _named(scene: Scene) -> Tensor:
    """What is seen, as zeros and ones."""
    thing = scene.things[0]
    families = ((SIZES, thing.size), (COLOURS, thing.colour), (SHAPES, thing.shape), (tuple(PLACES), scene.where),
                (COLOURS, scene.background))  # fmt: skip
    return torch.tensor([float(name == one) for names, one in families for name in names])
