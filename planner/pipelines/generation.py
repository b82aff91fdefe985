"""Calls diffusers pipelines by their signatures, never by their classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.conditions import check_pictures, is_digest, label_of, names_picture
from bitplan.planner.pipelines.places import GIVEN
from bitplan.planner.pipelines.results import channels_first, first_of, tensor_of
from bitplan.planner.texts import one_line

ANY = ""  # the pipeline's own output type


@dataclass(frozen=True)
class Generation:
    """The arguments of a pipeline's call.

    Attributes:
        steps: number of denoising steps; None for the pipeline's default.
        guidance: guidance scale; None for the pipeline's default.
        seed: condition i draws its noise from seed + i.
        options: more arguments, such as `height`.
        preset: whether the steps are BitPlan's default, which is given only where the call takes steps.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Returns the arguments as files store them; without `options` if there are none, of which pictures, tensors
        and other objects are stored as digests."""
        fields = {"steps": self.steps, "guidance": self.guidance, "seed": self.seed}
        return fields | (
            {"options": dict(zip(self.options, map(_stored, self.options.values()), strict=True))}
            if self.options
            else {}
        )


def _stored(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) and label_of(list(value)) == list(value) else label_of(value)


def generation_in(fields: Mapping[str, Any], **others: Any) -> Generation:
    """Returns the arguments that a file stores. others: fields to replace.

    Raises UserError where one of them is an object that the file holds only a digest of, TypeError for other fields.
    """
    generation = Generation(**{**fields, **others})
    if lost := [name for name, value in generation.options.items() if is_digest(value)]:
        raise UserError(f"{lost[0]} was an object of Python's in the calls that were measured, and the file holds only "
                        "its digest; name a picture by its path, or give it with each condition")  # fmt: skip
    check_pictures(generation.options, "an argument of the calls that were measured")
    return generation


@dataclass(frozen=True)
class Way:
    """How conditions are given to a pipeline.

    Attributes:
        together: several conditions in one call, as lists of values and of generators.
        listed: the only condition as lists of one value; else as bare values. Its generator is bare in both.
        output_type: what is asked for; `ANY` for the pipeline's own, which also the user's own argument is.
    """

    together: bool = False
    listed: bool = False
    output_type: str = "pt"


def outputs_of(pipe: Any, conditions: Sequence[Any], generation: Generation, way: Way | None = None) -> Tensor:
    """Runs the pipeline and returns one float32 output for each condition: (N, ...), images as (N, 3, H, W) in 0..1.

    Gradients flow as far as the pipeline supports it. Raises UserError for an argument that the call does not have.

    Args:
        pipe: the pipeline.
        conditions: prompts, or mappings of the call's arguments with equal keys; texts that name picture files are
            opened.
        generation: the other arguments.
        way: how they are given; None for several conditions in one call.
    """
    call = type(pipe).__call__
    call = getattr(call, "__wrapped__", call)  # without `torch.no_grad`: the caller decides
    arguments = arguments_of(pipe, conditions, generation, way or Way(together=True))
    if not torch.is_grad_enabled():
        return _of_size(pipe, tensor_of(first_of(call(pipe, **arguments))), generation)
    with _unguarded(pipe), _Arrays() as arrays:
        first = first_of(call(pipe, **arguments))
    return tensor_of(arrays.source_of(first))


def _of_size(pipe: Any, out: Tensor, generation: Generation) -> Tensor:
    """Returns the output. Raises UserError where --call gives one side of a picture, and the picture has another: most
    pipelines take both sides or neither."""
    given = [name for name in ("height", "width") if name in generation.options]
    if (
        len(given) != 1
        or out.dim() < 4
        or "output_type" in generation.options
        or not {"height", "width"} <= call_parameters(pipe).keys()
    ):
        return out
    (name,), sides = given, {"height": out.shape[-2], "width": out.shape[-1]}
    if generation.options[name] != sides[name]:
        other = "width" if name == "height" else "height"
        raise UserError(f"--call {name}={generation.options[name]} had no effect: {type(pipe).__name__} returned "
                        f"{sides['width']} x {sides['height']} px; give --call {other}=... too, or leave both out"
                        )  # fmt: skip
    return out


@contextmanager
def _unguarded(pipe: Any) -> Iterator[None]:
    """Within the `with`, the pipelines inside this one run without `torch.no_grad`, too.

    Each of these objects temporarily gets a subclass of its class, because Python looks `__call__` up in classes.
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
    """Lets pipelines convert tensors with gradients to arrays, which torch refuses, and records the source tensors.

    Some pipelines return arrays whatever `output_type` is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrays: list[tuple[np.ndarray, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.numpy or not args[0].requires_grad:
            return func(*args, **(kwargs or {}))
        self.arrays.append((args[0].detach().numpy(), args[0]))
        return self.arrays[-1][0]

    def source_of(self, value: Any) -> Any:
        """Returns the tensor behind the only recorded array, channels first; any other value unchanged.

        A tensor is detached if arrays were recorded, because these may have cut some of its gradients.
        """
        if len(self.arrays) == 1 and self.arrays[0][0] is value:
            return channels_first(self.arrays[0][1])
        return value.detach() if self.arrays and isinstance(value, Tensor) else value


def arguments_of(
    pipe: Any, conditions: Sequence[Any], generation: Generation, way: Way = Way(together=True)
) -> dict[str, Any]:
    """Returns the keyword arguments for the pipeline's call. Raises UserError."""
    parameters = call_parameters(pipe)
    rows, noise = (
        argument_rows(conditions),
        [torch.Generator().manual_seed(generation.seed + i) for i in range(len(conditions))],
    )
    listed = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    arguments: dict[str, Any] = dict(listed if way.together or way.listed else rows[0])
    settings = {"num_inference_steps": generation.steps, "guidance_scale": generation.guidance}
    common = {name: value for name, value in settings.items() if value is not None}
    _check_once(listed, {**common, "generator": noise}, generation.options)
    arguments |= common | {name: opened(value) for name, value in generation.options.items()}
    _check_taken(type(pipe), arguments)
    for row in rows:
        check_call(type(pipe), row)
    if not listed and "batch_size" in parameters:
        arguments["batch_size"] = len(conditions)
    given: dict[str, Any] = {"generator": noise if way.together else noise[0]}
    if way.output_type != ANY:
        given["output_type"] = way.output_type
    return {name: value for name, value in given.items() if name in parameters} | arguments


def _check_once(row: Iterable[str], given: Iterable[str], options: Iterable[str]) -> None:
    """Raises UserError for an argument of the conditions that every call has, too.

    row: the keys of a condition; given: arguments that BitPlan gives; options: those of --call.
    """
    for name in row:
        if name in given:
            raise UserError(f"a condition gives {name}, which is set by {GIVEN[name]} for all; leave one of them out")
        if name in options:
            raise UserError(f"a condition gives {name}, and --call {name} gives it for all; leave one of them out")


def check_call(kind: type, values: Mapping[str, Any]) -> None:
    """Raises UserError for an argument that the call of a class of pipelines does not have, and for a text where it
    takes a number."""
    _check_taken(kind, values)
    for name, value in values.items():
        if isinstance(value, str) and name in _numbers_of(kind):
            raise UserError(f"{kind.__name__} takes a number as {name}, not the text {value!r}; give one, such as "
                            f"{name}={_numbers_of(kind)[name]}")  # fmt: skip


@cache
def _numbers_of(kind: type) -> dict[str, object]:
    """The arguments of the call that are numbers by their defaults or their annotations -> an example."""
    try:
        hints = get_type_hints(kind.__call__)
    except Exception:  # names that are imported for type checkers alone
        hints = {}
    found: dict[str, object] = {}
    for name, parameter in _parameters_of(kind).items():
        default, kinds = parameter.default, {*get_args(hints.get(name)), hints.get(name)} & {int, float, str}
        if type(default) in (int, float) or (kinds and str not in kinds and default in (None, parameter.empty)):
            found[name] = default if type(default) in (int, float) else 1
    return found


def _check_taken(kind: type, names: Iterable[str]) -> None:
    """Raises UserError for an argument that the call does not have, with the nearest one."""
    parameters = _parameters_of(kind)
    for name in names:
        if name not in parameters:
            near = get_close_matches(name, parameters, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            quoted = "" if name.isidentifier() else "if it begins a prompt, put the prompt in quotes; "
            raise UserError(f"{kind.__name__} has no argument {name}; {quoted}{meant}its arguments are "
                            f"{', '.join(parameters)}")  # fmt: skip


def call_parameters(pipe: Any) -> dict[str, inspect.Parameter]:
    """Returns the named parameters of the pipeline's call."""
    return _parameters_of(type(pipe))


def _parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    call: Any = kind.__call__
    parameters = inspect.signature(getattr(call, "__wrapped__", call)).parameters
    return {name: p for name, p in parameters.items() if name != "self" and p.kind is not p.VAR_KEYWORD}


def conditions_for(pipe: Any, prompts: Sequence[str]) -> list[Any]:
    """Returns default conditions: the prompts, or as many empty mappings if the pipeline has no prompt argument.

    Raises UserError if the pipeline requires other arguments.
    """
    parameters = call_parameters(pipe)
    required = [name for name, p in parameters.items() if p.default is p.empty and name != "prompt"]
    if required:
        raise UserError(
            f"{type(pipe).__name__} needs {', '.join(required)}; give conditions in a YAML file, a list of "
            f"entries such as `{required[0]}: ...`, as `bitplan profile` and `bitplan evaluate` take by --prompts, or "
            "those of a Subject that loads the pipeline"
        )
    return list(prompts) if "prompt" in parameters else [{} for _ in prompts]


def argument_rows(conditions: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the arguments of each condition, pictures opened. Raises UserError if conditions have different keys."""
    rows = [{"prompt": condition} if isinstance(condition, str) else condition for condition in conditions]
    if wrong := [row for row in rows if not isinstance(row, Mapping)]:
        raise UserError(f"a condition of a pipeline is a prompt or a mapping, not a {type(wrong[0]).__name__}")
    if odd := [row["prompt"] for row in rows if isinstance(row.get("prompt"), (bool, int, float))]:
        raise UserError(f"the prompt {odd[0]} is of type {type(odd[0]).__name__}, not a text; put it in quotes")
    if any(row.keys() != rows[0].keys() for row in rows):
        raise UserError(f"conditions have different keys, such as {', '.join(rows[0])}; use the same keys in each")
    return [{name: opened(value) for name, value in row.items()} for row in rows]


def opened(value: Any) -> Any:
    """Returns the value with the pictures, whose files it names, nested ones also. Raises UserError."""
    if isinstance(value, Mapping):
        return {key: opened(part) for key, part in value.items()}
    if isinstance(value, list):
        return [opened(part) for part in value]
    if not names_picture(value):
        return value
    from PIL import Image

    try:
        return Image.open(value).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot open the picture {value}: {one_line(error)}; save it again as PNG") from error
