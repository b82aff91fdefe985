"""Pipelines: loading them, running them on prompts, and reaching the modules inside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import nn

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathError
from bitplan.planner.graph.layers import GraphError
from bitplan.planner.pipelines.additions import original
from bitplan.planner.pipelines.failures import calling
from bitplan.planner.pipelines.folders import check_folder, check_index
from bitplan.planner.pipelines.generation import Generation, check_call, outputs_of
from bitplan.planner.pipelines.marks import is_marked
from bitplan.planner.pipelines.offload import offloaded
from bitplan.planner.pipelines.places import check_options, known_here, locate
from bitplan.planner.pipelines.quiet import quiet
from bitplan.planner.pipelines.references import check_typed, is_reference, load_reference, user_function
from bitplan.planner.pipelines.subject import Subject, subject_of
from bitplan.planner.pipelines.variants import chosen_variant
from bitplan.planner.pipelines.weights import PLAIN, Weights
from bitplan.planner.scenes import SCENES
from bitplan.planner.texts import nearest, one_line
from bitplan.plans.dtypes import FLOAT32, float_type
from bitplan.plans.formats.base import FormatError
from bitplan.plans.inputs.base import ActivationError
from bitplan.plans.kernels import KernelError
from bitplan.plans.plan import PlanError


def load_subject(name: str | Subject, generation: Generation, weights: Weights = PLAIN) -> Subject:
    """Loads a subject; a `Subject` is returned unchanged. Raises UserError.

    Args:
        name: `scenes`, a folder or a hub id of a diffusers pipeline, or `package.module:name` of a Subject, of a
            pipeline, or of a function without arguments that returns one.
        generation: how the pipeline is called.
        weights: which weights are loaded.
    """
    if not isinstance(name, Subject):
        with offloaded(weights.folder):
            return _loaded(name, generation, weights)
    _check_no_variant(name.name, weights)
    if weights.folder is not None:
        raise UserError(f"{name.name} is in memory already, and --offload-folder needs to load it; give the "
                        "package.module:name of a function that returns it")  # fmt: skip
    return subject_of(name, generation)


def _check_no_variant(name: str, weights: Weights) -> None:
    if weights.variant is not None:
        raise UserError(f"{name} loads its own weights, and the variant {weights.variant} is asked for; load it there, "
                        "or leave --variant out")  # fmt: skip


def _loaded(name: str, generation: Generation, weights: Weights) -> Subject:
    if not is_reference(name):
        check_options_of(name, generation)
        return subject_of(load_pipeline(name, weights), generation, name)
    _check_no_variant(name, weights)
    target = load_reference(name)
    if not isinstance(target, (Subject, DiffusionPipeline)):
        with calling(name):
            target = user_function(target)()
    if not isinstance(target, (Subject, DiffusionPipeline)):
        raise UserError(f"{name} is a {type(target).__name__}; give a bitplan.Subject or a diffusers pipeline")
    subject = replace(subject_of(target, generation), name=name)
    if (dtype := weights.dtype) not in (FLOAT32, found := float_type(subject.modules.values())):
        raise UserError(
            f"{name} determines its own float type, {found}, and {dtype} is asked for; load it in {dtype} there, or "
            "leave --dtype of `bitplan profile` out"
        )
    return _in_folder(subject)


def _in_folder(subject: Subject) -> Subject:
    """The subject with functions that may import modules of the user's folder when they are called."""
    own = subject.conditions
    return replace(
        subject, run=user_function(subject.run), conditions=user_function(own) if callable(own) else own
    )  # fmt: skip


def generation_of(
    pipeline: str | Subject, steps: int | None, guidance: float | None, seed: int, call: Mapping[str, Any] | None = None
) -> Generation:
    """Returns the arguments of the pipeline's calls, with its own defaults for None. Raises UserError."""
    is_pipeline = isinstance(pipeline, str) and not is_reference(pipeline)
    default = DEFAULTS.get(pipeline, FALLBACK) if is_pipeline else Generation()
    if steps is not None and steps < 1:
        raise UserError(f"--steps is {steps}; give at least 1")
    if guidance is not None and not math.isfinite(guidance):
        raise UserError(f"--guidance {guidance} is not finite; give a number, such as 7.5")
    check_options(call or ())
    return Generation(
        steps or default.steps,
        default.guidance if guidance is None else guidance,
        seed,
        dict(call or {}),
        steps is None,
    )


REFUSALS = (
    UserError,
    PlanError,
    GraphError,
    KernelError,
    FormatError,
    ActivationError,
    PathError,
)  # BitPlan's own errors, whose messages are one line
DEFAULTS = {SCENES: Generation(steps=8, guidance=2.5)}
FALLBACK = Generation(steps=20)


def load_pipeline(name: str, weights: Weights = PLAIN, quantization: Any = None) -> Any:
    """Loads the pipeline `name`: `scenes`, a local folder or a hub id. quantization: a result of `bitplan.config`.

    Raises UserError if it cannot be loaded, and the errors of the quantization.
    """
    options: dict[str, Any] = {} if quantization is None else {"quantization_config": quantization}
    try:
        with quiet():
            place, variant = _checked_place(name, weights)
            pipe = DiffusionPipeline.from_pretrained(
                place, torch_dtype=getattr(torch, weights.dtype), trust_remote_code=False, variant=variant, **options
            )
    except REFUSALS:
        raise
    except Exception as error:  # an exception from a hub, a file or a config is bad input
        near = nearest(name, known_here(name))
        raise UserError(f"cannot load the pipeline {name!r}: {one_line(error, 200)}; name `{SCENES}`, a folder or a "
                        f"hub id{near}") from error  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def check_options_of(name: str, generation: Generation) -> None:
    """Raises UserError for options of the calls that the pipeline `name` does not take, before it is loaded."""
    if not generation.options:
        return
    try:
        with quiet():
            kind = getattr(diffusers, str(DiffusionPipeline.load_config(locate(name)).get("_class_name")), None)
    except REFUSALS:
        raise
    except Exception:  # told where it is loaded
        return
    if isinstance(kind, type):
        check_call(kind, generation.options)


def _checked_place(name: str, weights: Weights) -> tuple[str, str | None]:
    """Returns the result of `locate`, and the variant to load. Raises UserError where the pipeline's files name code,
    or files elsewhere."""
    check_typed(name)
    place = locate(name)
    index = DiffusionPipeline.load_config(place)
    check_index(name, index)
    folder = Path(place if Path(place).is_dir() else _downloaded(place, weights))
    check_folder(name, folder, index)
    return place, chosen_variant(name, folder, index, weights)


def _downloaded(place: str, weights: Weights) -> str:
    """Returns the folder of a hub id, with the files of the variant that is wanted where there are some."""
    wanted = weights.variant or weights.recorded
    try:
        return str(DiffusionPipeline.download(place, trust_remote_code=False, variant=wanted))
    except ValueError:
        if weights.variant is not None or wanted is None:
            raise
    return str(DiffusionPipeline.download(place, trust_remote_code=False))


def components(pipe: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """Returns the modules of these names. Raises UserError that lists the pipeline's components."""
    modules = {name: original(part) for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    if missing := [name for name in names if name not in modules]:
        raise UserError(f"the pipeline has no component {', '.join(missing)}; it has {', '.join(modules)}")
    return {name: modules[name] for name in names}


def float_components(pipe: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """Returns the modules of these names. Raises UserError also if one of them is packed."""
    parts = components(pipe, names)
    if packed := [name for name, part in parts.items() if is_marked(part)]:
        raise UserError(f"the {packed[0]} of this pipeline is packed by a plan already; load the float pipeline")
    return parts


def generate(pipe: Any, prompts: Sequence[Any], generation: Generation, batch: int = 16) -> torch.Tensor:
    """Returns the pipeline's outputs for prompts or other conditions, such as (prompts, 3, H, W) images in 0..1.

    Prompt i starts from the noise of seed + i, whatever the batch.
    """
    with torch.no_grad():
        starts = range(0, len(prompts), batch)
        seeded = [(prompts[at : at + batch], replace(generation, seed=generation.seed + at)) for at in starts]
        return torch.cat([outputs_of(pipe, part, arguments).cpu() for part, arguments in seeded])
