"""How diffusers pipelines are called: each by what its own signature takes, never by its class."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bitplan.planner.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Generation:
    """The arguments of a pipeline's call.

    Attributes:
        steps: number of denoising steps; None for the pipeline's default.
        guidance: guidance scale; None for the pipeline's default.
        seed: condition i draws its noise from seed + i.
        options: more arguments, such as `height`.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What files hold: the arguments, without options where there are none."""
        fields = {"steps": self.steps, "guidance": self.guidance, "seed": self.seed}
        return fields | ({"options": dict(self.options)} if self.options else {})


def outputs_of(pipe: Any, conditions: Sequence[Any], generation: Generation) -> Tensor:
    """One output a condition, samples first, float32: images and frames with channels before rows, in 0..1.

    conditions: prompts, or mappings of what the call takes, of the same names each; a text that names a picture file is
    opened. Gradients flow as far as the pipeline lets them. Raises UserError for what the call does not take.
    """
    call = type(pipe).__call__
    call = getattr(call, "__wrapped__", call)  # beneath `torch.no_grad`: whether there are gradients the caller says
    given = arguments_of(pipe, conditions, generation)
    if not torch.is_grad_enabled():
        return _tensor_of(_first_of(call(pipe, **given)))
    with _unguarded(pipe), _Arrays() as arrays:
        first = _first_of(call(pipe, **given))
    return _tensor_of(arrays.source_of(first))


@contextmanager
def _unguarded(pipe: Any) -> Iterator[None]:
    """Within the `with`, the pipelines that this one is made of are not called with `torch.no_grad` either.

    Each of them, and no other object, has a subclass of its class for that time: Python looks `__call__` up in classes.
    """
    parts = {id(part): part for part in vars(pipe).values() if isinstance(part, DiffusionPipeline)}
    with ExitStack() as stack:
        for part in parts.values():
            kind = type(part)
            call = getattr(kind.__call__, "__wrapped__", kind.__call__)
            stack.callback(setattr, part, "__class__", kind)
            part.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
        yield


class _Arrays(TorchFunctionMode):
    """Some pipelines give an array whatever they are asked for, as which torch refuses what has gradients. While in the
    `with` it does not, and it is known of which tensor an array was made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[np.ndarray, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.numpy or not args[0].requires_grad:
            return func(*args, **(kwargs or {}))
        self.made.append((args[0].detach().numpy(), args[0]))
        return self.made[-1][0]

    def source_of(self, value: Any) -> Any:
        """The tensor, with its gradients and channels first, of an array made here; all else as it is, without its
        gradients where some of them were lost in other arrays."""
        if len(self.made) == 1 and self.made[0][0] is value:
            return _channels_first(self.made[0][1])
        return value.detach() if self.made and isinstance(value, Tensor) else value


def arguments_of(pipe: Any, conditions: Sequence[Any], generation: Generation) -> dict[str, Any]:
    """What the call of the pipeline is given. Raises UserError."""
    takes = taken_by(pipe)
    given = _gathered(conditions)
    noise = [torch.Generator().manual_seed(generation.seed + i) for i in range(len(conditions))]
    asked = {"num_inference_steps": generation.steps, "guidance_scale": generation.guidance}
    given |= {name: value for name, value in asked.items() if value is not None} | dict(generation.options)
    if unknown := [name for name in given if name not in takes]:
        raise UserError(f"{type(pipe).__name__} takes no {unknown[0]}; it takes {', '.join(takes)}")
    if not _gathered(conditions) and "batch_size" in takes:
        given["batch_size"] = len(conditions)
    return given | {key: value for key, value in {"generator": noise, "output_type": "pt"}.items() if key in takes}


def taken_by(pipe: Any) -> dict[str, inspect.Parameter]:
    """What the pipeline's call takes, by name."""
    call = type(pipe).__call__
    found = inspect.signature(getattr(call, "__wrapped__", call)).parameters
    return {name: its for name, its in found.items() if name != "self" and its.kind is not its.VAR_KEYWORD}


def conditions_for(pipe: Any, prompts: Sequence[str]) -> list[Any]:
    """Conditions of a pipeline where the user names none: the prompts, or as many of nothing where it takes nothing.

    Raises UserError where it cannot go without something else.
    """
    takes = taken_by(pipe)
    needed = [name for name, its in takes.items() if its.default is its.empty and name != "prompt"]
    if needed:
        raise UserError(
            f"{type(pipe).__name__} needs {', '.join(needed)}; give conditions in a YAML file, --prompts FILE.yaml, a "
            f"list of entries such as `{needed[0]}: ...`"
        )
    return list(prompts) if "prompt" in takes else [{} for _ in prompts]


def _gathered(conditions: Sequence[Any]) -> dict[str, list[Any]]:
    """Conditions as the lists that a call takes. Raises UserError where they differ in their names."""
    rows = [{"prompt": one} if isinstance(one, str) else one for one in conditions]
    if wrong := [one for one in rows if not isinstance(one, Mapping)]:
        raise UserError(f"a condition of a pipeline is a prompt or a mapping, not a {type(wrong[0]).__name__}")
    if any(row.keys() != rows[0].keys() for row in rows):
        raise UserError(f"conditions name different things, such as {', '.join(rows[0])}; name the same in each")
    return {name: [_opened(row[name]) for row in rows] for name in rows[0]} if rows else {}


def _opened(value: Any) -> Any:
    if isinstance(value, str) and value.lower().endswith(PICTURES) and Path(value).is_file():
        from PIL import Image

        return Image.open(value).convert("RGB")
    return value


def _first_of(out: Any) -> Any:
    """What a pipeline returned, or the first part of it."""
    return next(iter(out.values())) if isinstance(out, Mapping) else out[0] if isinstance(out, tuple) else out


def _channels_first(pictures: Tensor) -> Tensor:
    """Of pictures and films as numpy has them; all else as it is."""
    return pictures.movedim(-1, -3) if pictures.dim() in (4, 5) and pictures.shape[-1] == 3 else pictures


def _tensor_of(first: Any) -> Tensor:
    """As floats, samples first. Raises UserError for what is no numbers."""
    if isinstance(first, (list, tuple)) and first and all(isinstance(one, Tensor) for one in first):
        first = torch.stack(list(first))
    if isinstance(first, (list, tuple)) and first and all(isinstance(one, np.ndarray) for one in first):
        first = np.stack(list(first))
    if isinstance(first, np.ndarray):
        first = _channels_first(torch.from_numpy(first))
    if not isinstance(first, Tensor):
        raise UserError(f"the pipeline returned {type(first).__name__}, not numbers; bring it as a bitplan.Subject")
    return first.float() if first.dim() > 2 else first.float().unsqueeze(1)
