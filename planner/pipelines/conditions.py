"""What a subject is run on: prompts, mappings of what a pipeline takes, or whatever a Subject understands."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike
from bitplan.planner.scenes.grammar import TRAIN, held_out_scenes, sample_scene

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


def conditions_in(given: PathLike | Sequence[Any] | None) -> list[Any] | None:
    """The prompts or other conditions given, read from a file where they are a path. Raises UserError."""
    if given is None:
        return None
    return read_conditions(Path(given)) if isinstance(given, (str, Path)) else list(given)


LISTS = (".yaml", ".yml", ".json")
DIGEST = "sha256"  # key of a label that is one


def read_conditions(path: Path) -> list[Any]:
    """Of a text file one prompt a line; of a YAML or JSON file the entries of its list, prompts or mappings.

    Raises UserError.
    """
    if path.suffix.lower() not in LISTS:
        return list(read_prompts(path))
    try:
        found = yaml.safe_load(path.read_text("utf-8-sig"))  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the conditions file {path}: {error}; give a YAML or JSON list") from error
    if not isinstance(found, list) or not found or not all(isinstance(one, (str, dict)) for one in found):
        raise UserError(
            f"the conditions file {path} holds no list of prompts or mappings; write `- prompt: ...` entries"
        )
    return found


def labels_of(conditions: Sequence[Any]) -> tuple[Any, ...]:
    """How files name conditions: what is text or JSON stays as it is, of all else a digest tells it from others."""
    return tuple(one if _is_plain(one) else {DIGEST: _digest(one)} for one in conditions)


def is_digest(label: Any) -> bool:
    """Whether the label only tells the condition from others."""
    return isinstance(label, dict) and label.keys() == {DIGEST}


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _digest(value: Any) -> str:
    """Of the numbers of a tensor, else of the pickled object. Raises UserError for what cannot be pickled."""
    import torch

    if isinstance(value, torch.Tensor):
        numbers = value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        value = (str(value.dtype), tuple(value.shape), numbers)
    try:
        return hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest()
    except Exception as error:  # whatever an object throws that cannot be pickled
        kind = type(value).__name__
        raise UserError(
            f"a condition is a {kind} that cannot be pickled ({error}); use tensors, texts or mappings"
        ) from None
