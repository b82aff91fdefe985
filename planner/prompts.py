"""Prompts to calibrate and measure on: the built-in lists, or a file with one a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from planner.errors import UserError
from planner.scenes.grammar import TRAIN, held_out_scenes, sample_scene

GENERAL = (
    "a photo of a red fox sitting in deep snow at dawn",
    "an oil painting of a harbour with three small boats",
    "a bowl of oranges on a wooden table next to a blue vase",
    "a portrait of an old man with a white beard, studio light",
    "a steam train crossing a stone bridge in the mountains",
    "a street at night in the rain, neon signs reflected on the ground",
    "a child flying a yellow kite on a beach",
    "a bookshelf filled with old leather books and a sleeping cat",
)


def built_in_prompts(scenes: bool, count: int, seed: int = 0) -> list[str]:
    """`count` prompts to measure on: captions of the training kind for the embedded pipeline, else general ones."""
    if not scenes:
        if count > len(GENERAL):
            raise UserError(f"there are {len(GENERAL)} built-in prompts, not {count}; give more in a --prompts file")
        return list(GENERAL[:count])
    rng = np.random.default_rng([seed, 3])
    return [sample_scene(rng, 1 + i % 2, TRAIN).caption for i in range(count)]


def held_out_prompts(count: int, seed: int = 0) -> list[str]:
    """`count` captions with things that training never showed, one thing and two by turns."""
    ones = held_out_scenes((count + 1) // 2, 1, seed)
    twos = held_out_scenes(count // 2, 2, seed)
    pairs = [scene.caption for pair in zip(ones, twos, strict=False) for scene in pair]
    return pairs + [scene.caption for scene in ones[len(twos) :]]


def read_prompts(path: Path) -> list[str]:
    """One prompt a line, blank lines left out. Raises UserError."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prompts file {path}: {error}; give a UTF-8 text file") from error
    if not any(lines):
        raise UserError(f"the prompts file {path} holds no prompt; write one a line")
    return [line for line in lines if line]
