"""What a subject is run on: prompts, mappings of what a pipeline takes, or whatever a Subject understands."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from planner.errors import UserError
from planner.prompts import read_prompts

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
    return isinstance(label, dict) and label.keys() == {"sha256"}


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _digest(value: Any) -> str:
    """Of the numbers of a tensor, else of the pickled object. Raises UserError for what cannot be pickled."""
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
