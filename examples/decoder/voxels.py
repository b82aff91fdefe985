"""The data of the example: scenes, and the responses of simulated voxels with fixed random weights.

Early voxels respond to patches of the picture, late voxels to the attributes of its object: random projections through
tanh, with noise. The decoder has no other input.
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
PATCHES = 8  # patches on a side of the picture, for early voxels
NOISE = 0.15  # standard deviation of a voxel's noise; responses are in -1..1


@dataclass(frozen=True, eq=False)
class Recording:
    """Scenes and the responses to them.

    Attributes:
        scenes: P scenes.
        pictures: (P, 3, 64, 64) in 0..1.
        voxels: responses, (P, VOXELS).
    """

    scenes: tuple[Scene, ...]
    pictures: Tensor
    voxels: Tensor


def record(count: int, seed: int, held_out: bool = False) -> Recording:
    """Draws scenes of one object each and their responses. held_out: objects that occur in no other scene."""
    rng = np.random.default_rng([seed, held_out])
    scenes = tuple(sample_scene(rng, 1, HELD_OUT if held_out else TRAIN) for _ in range(count))
    pictures = torch.from_numpy(np.stack([draw_scene(scene, rng) for scene in scenes])).permute(0, 3, 1, 2).float()
    noise = torch.from_numpy(rng.normal(0, NOISE, (count, VOXELS))).float()
    return Recording(scenes, pictures.contiguous(), responses(pictures, scenes) + noise)


def responses(pictures: Tensor, scenes: tuple[Scene, ...]) -> Tensor:
    """Returns the responses without noise, (P, VOXELS)."""
    patches = torch.nn.functional.adaptive_avg_pool2d(pictures, PATCHES).flatten(1) * 2 - 1
    attributes = torch.stack([_attributes(scene) for scene in scenes])
    weights = np.random.default_rng(0)
    early, late = (
        torch.from_numpy(weights.normal(0, spread, (many, voxels))).float()
        for many, voxels, spread in ((patches.shape[1], EARLY, 0.08), (attributes.shape[1], LATE, 0.4))
    )
    return torch.cat([torch.tanh(patches @ early), torch.tanh(attributes @ late)], 1)


def _attributes(scene: Scene) -> Tensor:
    """Returns the attributes of the object and background as one-hot vectors."""
    thing = scene.things[0]
    families = ((SIZES, thing.size), (COLOURS, thing.colour), (SHAPES, thing.shape), (tuple(PLACES), scene.where),
                (COLOURS, scene.background))  # fmt: skip
    return torch.tensor([float(name == one) for names, one in families for name in names])
