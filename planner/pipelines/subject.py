"""A subject is what BitPlan plans: modules, a function that runs them on conditions, and metrics of the outputs.

Diffusers pipelines become subjects; other models are wrapped in a `Subject`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.additions import original
from bitplan.planner.pipelines.calling import Caller, is_pipeline
from bitplan.planner.pipelines.conditions import GENERAL, built_in_prompts, held_out_prompts, is_digest, labels_of
from bitplan.planner.pipelines.failures import calling, shown
from bitplan.planner.pipelines.generation import Generation, call_parameters, conditions_for
from bitplan.planner.scenes import SCENES
from bitplan.sensitivity.metrics import Metric
from bitplan.sensitivity.runs.generators import seeded
from bitplan.sensitivity.runs.outcome import PICTURES, out_of_range

OUTPUTS = {
    "images": "(P, 3, H, W) in 0..1",
    "video": "(P, F, 3, H, W) in 0..1",
    "audio": "(P, C, T)",
    "array": "(P, ...)",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that BitPlan can run and compare.

    Attributes:
        modules: name -> module, of all modules in the run; the components to plan are chosen among them.
        run: (conditions, seed) -> float outputs, one for each condition. Condition i draws its noise from seed + i, so
            that its output does not depend on the batch. Torch's global generators begin at the seed of each call. It
            must not disable gradients; the caller does.
        conditions: the default conditions, of any type; or a function (count, held out) -> conditions.
        output: a key of `OUTPUTS`; None to derive it from the shape of the outputs.
        metrics: names of built-in metrics, or `Metric`s; None for the default metrics of the kind of output.
        name: in profiles and plans.
        kind: name of its class.
    """

    modules: Mapping[str, nn.Module]
    run: Callable[[Sequence[Any], int], Tensor]
    conditions: Sequence[Any] | Callable[[int, bool], Sequence[Any]] = ()
    output: str | None = None
    metrics: Sequence[str | Metric] | None = None
    name: str = "subject"
    kind: str = "Subject"

    def __post_init__(self) -> None:
        wrong = [name for name, module in self.modules.items() if not isinstance(module, nn.Module) or "." in name]
        if not self.modules or wrong:
            raise UserError(f"the modules of {self.name} are {', '.join(wrong) or 'none'}; map names to nn.Modules")
        if self.output is not None and self.output not in OUTPUTS:
            raise UserError(f"the output of {self.name} is {self.output!r}; choose {', '.join(OUTPUTS)} or None")

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The modules; diffusers pipelines have this attribute, too."""
        return self.modules


def subject_of(pipe: Any, generation: Generation, name: str | None = None) -> Subject:
    """Wraps a diffusers pipeline, called with the arguments `generation`. A Subject is returned with the same fields;
    modules that are compiled are the original ones in both."""
    if isinstance(pipe, Subject):
        steps = None if generation.preset else generation.steps
        if steps is not None or generation.guidance is not None or generation.options:
            raise UserError(f"{pipe.name} determines how it runs; leave steps, guidance and call options out")
        modules = {key: original(part) for key, part in pipe.modules.items()}
        return pipe if modules == pipe.modules else replace(pipe, modules=modules)
    modules = {key: original(part) for key, part in pipe.components.items() if isinstance(part, nn.Module)}
    kind = type(pipe).__name__
    return Subject(modules, Caller(pipe, generation), partial(_built_in, pipe, name), name=name or kind, kind=kind)


def _built_in(pipe: Any, name: str | None, count: int, held_out: bool) -> Sequence[Any]:
    if name == SCENES:
        return held_out_prompts(count) if held_out else built_in_prompts(True, count)
    if "prompt" not in call_parameters(pipe):
        return conditions_for(pipe, [""] * count)
    return conditions_for(pipe, built_in_prompts(False, min(count, len(GENERAL)) if held_out else count))


def component_bytes(subject: Subject) -> dict[str, int]:
    """Component -> bytes of all its weights. Weights that components share count in the first of them."""
    known: set[int] = set()
    sizes = {}
    for name, module in subject.modules.items():
        own = [weight for weight in module.parameters() if id(weight) not in known]
        known |= {id(weight) for weight in own}
        sizes[name] = sum(weight.numel() * weight.element_size() for weight in own)
    return sizes


def conditions_of(subject: Subject, chosen: Sequence[Any] | None, count: int, held_out: bool = False) -> list[Any]:
    """Returns the conditions to run on: the chosen ones, else `count` of the subject's own, or all if there are fewer.

    held_out: prefer conditions that planning does not use. Raises UserError.
    """
    own = subject.conditions
    if chosen is not None and own and not callable(own):
        raise UserError(f"{subject.name} has {len(own)} conditions of its own; leave --prompts out")
    if chosen is None:
        chosen = _own_conditions(subject, own, count, held_out) if callable(own) else own[:count]
    if not chosen:
        raise UserError(f"{subject.name} has no conditions to run on; give the Subject some, or a verb that takes "
                        "it, as `bitplan profile` and `bitplan evaluate` do, --prompts FILE")  # fmt: skip
    return list(chosen)


def _own_conditions(subject: Subject, make: Callable[[int, bool], Sequence[Any]], count: int, held_out: bool) -> Any:
    with calling(f"the conditions of {subject.name}, asked for {count},"):
        return make(count, held_out)


def holding(subject: Subject, conditions: Sequence[Any]) -> Subject:
    """Returns the subject with these conditions as its own, for labels that do not tell the condition."""
    return (
        subject
        if subject.conditions and not callable(subject.conditions)
        else replace(subject, conditions=tuple(conditions))
    )


def conditions_in(subject: Subject, labels: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the conditions with these labels in a profile: the subject's own, else the labels themselves.

    Raises UserError if a label is a digest and the subject does not return a condition with that digest.
    """
    own = subject.conditions
    if own and not callable(own):
        return tuple(own[: len(labels)])
    if not any(is_digest(label) for label in labels):
        return tuple(labels)
    conditions = tuple(_own_conditions(subject, own, len(labels), False)) if callable(own) else ()
    if labels_of(conditions) != tuple(labels):
        raise UserError(f"the profile's conditions are neither text nor JSON, and {subject.name} does not return "
                        "the same ones; give them to the Subject")  # fmt: skip
    return conditions


@torch.no_grad()
def run_subject(subject: Subject, conditions: Sequence[Any], seed: int, batch: int | None = None) -> Tensor:
    """Returns the outputs of all conditions on the CPU; condition i has the noise of seed + i.

    batch: conditions in one call; None for all. Raises UserError if the result is not one output for each condition.
    """
    starts = range(0, len(conditions), batch or max(len(conditions), 1))
    outputs = [checked(subject, conditions[at : at + (batch or len(conditions))], seed + at) for at in starts]
    return torch.cat([part.cpu() for part in outputs])


def checked(subject: Subject, conditions: Sequence[Any], seed: int) -> Tensor:
    """Returns the result of `subject.run`, for which torch's global generators begin at the seed; then they are as
    before. Raises UserError if it is not one output for each condition.
    """
    with calling(f"{subject.name}, called with {shown(conditions)} and seed {seed},"), seeded(seed):
        out = subject.run(conditions, seed)
    if not isinstance(out, Tensor) or not out.is_floating_point() or not out.dim() or len(out) != len(conditions):
        what = f"a {out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UserError(f"{subject.name} returned {what} for {len(conditions)} conditions; return floats, one row each")
    return out


def output_of(subject: Subject, out: Tensor) -> str:
    """Returns the kind of output, from the subject or the shape. Raises UserError if both disagree."""
    images, video = out.dim() == 4 and out.shape[1] == 3, out.dim() == 5 and out.shape[2] == 3
    by_shape = "images" if images else "video" if video else "audio" if out.dim() == 3 else "array"
    if subject.output is None and by_shape in PICTURES and is_pipeline(subject.run) and out_of_range(out):
        by_shape = "array"  # such as the normals of surfaces, in -1..1
    kind = subject.output or by_shape
    if kind in ("images", "video") and kind != by_shape:
        raise UserError(f"{subject.name} returned {tuple(out.shape)} for {kind}, which are {OUTPUTS[kind]}")
    return kind
