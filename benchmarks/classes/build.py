"""Builds a pipeline of a class from parts that several classes share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers
from tests import tiny
from tests.zoo import parts
from tests.zoo.animal import PROMPTS, Animal

from bitplan.planner.pipelines.generation import Generation

SIDE = tiny.SIDE
SIZE = {"height": SIDE, "width": SIDE}
PICTURES = tuple({"prompt": prompt, "image": parts.picture(i)} for i, prompt in enumerate(PROMPTS))
ALONE = tuple({"image": parts.picture(i)} for i in range(2))  # pictures without texts
MASKED = tuple(row | {"mask_image": parts.mask()} for row in PICTURES)
CONTROLLED = tuple(row | {"control_image": parts.picture(1 - i)} for i, row in enumerate(PICTURES))
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder", "watermarker", "requires_safety_checker")


def filmed(frames: int, key: str = "video") -> tuple[dict[str, Any], ...]:
    """Returns conditions of a prompt and a video."""
    return tuple({"prompt": prompt, key: [parts.picture(i)] * frames} for i, prompt in enumerate(PROMPTS))


def build(name: str, made: Callable[[], Mapping[str, Any]], **more: Any) -> Any:
    """Builds a pipeline of those parts of a kit that the class takes.

    Args:
        name: of the class.
        made: makes the kit.
        more: other parts, or functions that make them from the kit.
    """
    kind = getattr(diffusers, name)
    kit = dict(made())
    for key, part in more.items():
        kit[key] = part(kit) if inspect.isfunction(part) else part
    taken = inspect.signature(kind.__init__).parameters
    absent = {key: None for key in OPTIONAL if key in taken and taken[key].default is inspect.Parameter.empty}
    return kind(**absent | {key: part for key, part in kit.items() if key in taken})


def line(
    name: str,
    family: str,
    made: Callable[[], Mapping[str, Any]],
    conditions: tuple[Any, ...] = PROMPTS,
    generation: Generation | None = None,
    iterates: tuple[str, ...] = (),
    **more: Any,
) -> Animal:
    """Returns one class, which two steps with guidance run."""
    return Animal(
        name, family, partial(build, name, made, **more), iterates, generation or Generation(2, 2.0), conditions
    )


def given(steps: int | None = 2, guidance: float | None = 2.0, **options: Any) -> Generation:
    """Returns the arguments of a call."""
    return Generation(steps, guidance, options=options)
