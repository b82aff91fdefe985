"""Converts what pipelines return to one tensor: tensors, arrays, pictures, and lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from bitplan.planner.errors import UserError


def first_of(out: Any) -> Any:
    """Returns the first field of a pipeline's result or tuple that is not None, or the value itself."""
    fields = list(out.values()) if isinstance(out, Mapping) else list(out) if isinstance(out, tuple) else [out]
    return next((value for value in fields if value is not None), None)


def channels_first(pictures: Tensor) -> Tensor:
    """Moves the channels of images and videos in numpy's order to the front; returns other tensors unchanged."""
    return pictures.movedim(-1, -3) if pictures.dim() in (4, 5) and pictures.shape[-1] == 3 else pictures


def tensor_of(first: Any) -> Tensor:
    """Returns the output as a float tensor, samples first, pictures in 0..1. Raises UserError if it is not numeric."""
    if isinstance(first, (list, tuple)) and first and all(isinstance(part, Tensor) for part in first):
        first = torch.stack(list(first))
    if not isinstance(first, Tensor):
        first = channels_first(torch.from_numpy(_array_of(first)))
    return first.float() if first.dim() > 2 else first.float().unsqueeze(1)


def _array_of(value: Any) -> np.ndarray:
    """Returns arrays, pictures and nested lists of them as one array, channels last. Raises UserError."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value
    if isinstance(value, Image):
        coloured = value if value.mode in ("RGB", "L") or value.mode.startswith(("I", "F")) else value.convert("RGB")
        pixels = np.asarray(coloured)
        return pixels.astype(np.float32) / (np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1)
    if isinstance(value, Tensor):
        return value.detach().float().cpu().numpy()
    if not isinstance(value, (list, tuple)) or not value:
        raise UserError(f"the pipeline returned {type(value).__name__}, not numbers; wrap it in a bitplan.Subject")
    parts = [_array_of(part) for part in value]
    if shapes := {part.shape for part in parts} - {parts[0].shape}:
        raise UserError(f"the pipeline returned outputs of the shapes {parts[0].shape} and {shapes.pop()}; give all "
                        "the same size")  # fmt: skip
    return np.stack(parts)
