"""Draws batches of captioned scenes for training, without held-out objects."""

from __future__ import annotations

import numpy as np
import torch

from bitplan.planner.scenes.draw import draw_scenes
from bitplan.planner.scenes.grammar import TRAIN, Scene, sample_scene

TWO_SHARE = 0.6  # share of scenes with two objects, which are harder


def numpy_rng(generator: torch.Generator) -> np.random.Generator:
    """Returns a numpy generator that is seeded from a torch one."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))


def random_scene(rng: np.random.Generator, split: str = TRAIN) -> Scene:
    """Draws a scene of one or two objects."""
    return sample_scene(rng, 1 + int(rng.random() < TWO_SHARE), split)


def scene_batch(size: int, rng: np.random.Generator, split: str = TRAIN) -> tuple[list[Scene], torch.Tensor]:
    """Draws scenes and their pictures, (size, 3, 64, 64) float32 in -1..1."""
    scenes = [random_scene(rng, split) for _ in range(size)]
    pictures = torch.from_numpy(draw_scenes(scenes, rng)).permute(0, 3, 1, 2)
    return scenes, pictures.float() / 127.5 - 1
