"""Pipelines: loading them, running them on prompts, and reaching the modules inside."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn
from transformers import AutoTokenizer, CLIPModel

from planner.arguments import FLOAT32
from planner.calling import Generation, outputs_of
from planner.errors import UserError
from planner.graph import GraphError
from planner.loading.marking import is_marked
from planner.scenes import CLIP_FOLDER, PIPELINE_FOLDER
from plans.activations import ActivationError
from plans.formats import FormatError
from plans.kernels import KernelError
from plans.plan import PlanError
from sensitivity.metrics import Encoder, clip_encoder
from sensitivity.nested import mapped

SCENES = "scenes"
HUB_CLIP = "openai/clip-vit-base-patch32"  # the alignment metric's model where the pipeline brings none
REFUSALS = (UserError, PlanError, GraphError, KernelError, FormatError, ActivationError)  # of ours: one line each

DEFAULTS = {SCENES: Generation(steps=8, guidance=2.5)}
FALLBACK = Generation(steps=20)


def locate(name: str) -> str:
    """What `from_pretrained` is given for `name`: the embedded pipeline's folder, a folder, or a hub id."""
    if name == SCENES:
        return str(PIPELINE_FOLDER)
    if Path(name).is_dir():
        if not (Path(name) / "model_index.json").is_file():
            raise UserError(f"{name} holds no model_index.json; name a folder that save_pretrained wrote")
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"there is no pipeline folder {name}; name `{SCENES}`, a local folder or a hub id")
    return name


def load_pipeline(name: str, dtype: str = FLOAT32, quantization: Any = None) -> Any:
    """The pipeline `name`: `scenes`, a local folder or a hub id; quantization: what `planner.config` gives.

    Raises UserError when it cannot be loaded; what the quantization refuses, as it does.
    """
    options = {} if quantization is None else {"quantization_config": quantization}
    try:
        with _quiet():
            pipe = DiffusionPipeline.from_pretrained(locate(name), torch_dtype=getattr(torch, dtype), **options)
    except REFUSALS:
        raise
    except Exception as error:  # whatever a hub, a file or a config throws is bad input to us
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot load the pipeline {name!r}: {reason}; name `{SCENES}`, a folder or a hub id"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_encoder(name: str, clip: str | None = None) -> Encoder:
    """The alignment metric's CLIP: the embedded one for `scenes`, else `clip`, a folder or hub id of a CLIPModel."""
    place = clip or (str(CLIP_FOLDER) if name == SCENES else HUB_CLIP)
    try:
        with _quiet():
            # float32 whatever the file holds: rounding to 16 bits moves embeddings by more than a good scheme does
            model = CLIPModel.from_pretrained(place, torch_dtype=torch.float32).eval().requires_grad_(False)
            tokenizer = AutoTokenizer.from_pretrained(place)
            mean, std = _normalisation(place)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"cannot load the CLIP model {place!r}: {reason}; give --clip a folder or hub id, or "
                        "bring a Subject with metrics that embed no images") from error  # fmt: skip
    return clip_encoder(model, tokenizer, mean, std)


def _normalisation(place: str) -> tuple[list[float], list[float]]:
    """What the model's image processor subtracts and divides by."""
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor.from_pretrained(place)
    return list(processor.image_mean), list(processor.image_std)


def components(pipe: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules of these names. Raises UserError naming what the pipeline has."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    if missing := [name for name in names if name not in modules]:
        raise UserError(f"the pipeline has no component {', '.join(missing)}; it has {', '.join(modules)}")
    return {name: modules[name] for name in names}


def float_components(pipe: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """The same, of a float pipeline. Raises UserError for one that has been packed."""
    parts = components(pipe, names)
    if packed := [name for name, part in parts.items() if is_marked(part)]:
        raise UserError(f"the {packed[0]} of this pipeline is packed by a plan already; load the float pipeline")
    return parts


def generate(pipe: Any, prompts: Sequence[Any], generation: Generation, batch: int = 16) -> torch.Tensor:
    """What the pipeline puts out for prompts or other conditions, such as (prompts, 3, H, W) float32 images in 0..1;
    prompt i starts from the noise of seed + i, whatever the batch."""
    with torch.no_grad():
        starts = range(0, len(prompts), batch)
        seeded = [(prompts[at : at + batch], replace(generation, seed=generation.seed + at)) for at in starts]
        return torch.cat([outputs_of(pipe, some, its).cpu() for some, its in seeded])


@dataclass(frozen=True, eq=False)
class Call:
    """One recorded call. module: what was called."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    module: nn.Module | None = None


@contextlib.contextmanager
def recorded_calls(*modules: nn.Module) -> Iterator[list[Call]]:
    """Collects the inputs of every call of the modules made inside the block."""
    calls: list[Call] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # samplers may write into what they passed
        calls.append(Call(*(mapped(part, lambda x: x.detach().clone()) for part in (args, kwargs)), module))

    with contextlib.ExitStack() as stack:
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield calls


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the loading bars and notes of the libraries: our own progress is the only one shown."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
