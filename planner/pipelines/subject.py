"""What is planned: modules, a way to run them on conditions, and a way to compare what comes out.

A diffusers pipeline is one; anything else that can be run is, too: `Subject` takes twenty lines to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.conditions import GENERAL, built_in_prompts, held_out_prompts, is_digest, labels_of
from bitplan.planner.pipelines.generation import Generation, conditions_for, outputs_of, taken_by
from bitplan.planner.pipelines.quiet import quiet_libraries
from bitplan.planner.scenes import SCENES
from bitplan.sensitivity.metrics import Metric

OUTPUTS = {
    "images": "(P, 3, H, W) in 0..1",
    "video": "(P, F, 3, H, W) in 0..1",
    "audio": "(P, C, T)",
    "array": "(P, ...)",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A pipeline as BitPlan sees it.

    Attributes:
        modules: name -> module, of all that takes part; the components to plan are chosen among them.
        run: (conditions, seed) -> float outputs, one for each condition. Condition i draws its noise from seed + i, so
            that its output does not depend on the batch. It must not disable gradients; the caller does.
        conditions: what to run on where the user gives nothing, of any type; or a function of (count, held out).
        output: a key of `OUTPUTS`; None for the kind that the shape of the outputs tells.
        metrics: names of built-in metrics, or `Metric`s; None for those of the kind of output.
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
            raise UserError(f"{self.name} says that it puts out {self.output!r}; choose {', '.join(OUTPUTS)} or None")

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The modules, under the name that diffusers gives them."""
        return self.modules


def subject_of(pipe: Any, generation: Generation, name: str | None = None) -> Subject:
    """A diffusers pipeline, called as `generation` says. A Subject is given back as it is."""
    if isinstance(pipe, Subject):
        if generation.steps is not None or generation.guidance is not None or generation.options:
            raise UserError(f"{pipe.name} says itself how it runs; leave steps, guidance and call options out")
        return pipe
    modules = {key: part for key, part in pipe.components.items() if isinstance(part, nn.Module)}
    kind = type(pipe).__name__
    return Subject(
        modules, partial(_run_pipeline, pipe, generation), partial(_built_in, pipe, name), name=name or kind, kind=kind
    )


def _built_in(pipe: Any, name: str | None, count: int, held_out: bool) -> Sequence[Any]:
    if name == SCENES:
        return held_out_prompts(count) if held_out else built_in_prompts(True, count)
    if "prompt" not in taken_by(pipe):
        return conditions_for(pipe, [""] * count)
    return conditions_for(pipe, built_in_prompts(False, min(count, len(GENERAL)) if held_out else count))


def _run_pipeline(pipe: Any, generation: Generation, conditions: Sequence[Any], seed: int) -> Tensor:
    with quiet_libraries():
        return outputs_of(pipe, conditions, replace(generation, seed=seed))


def conditions_of(subject: Subject, given: Sequence[Any] | None, count: int, held_out: bool = False) -> list[Any]:
    """Returns the conditions to run on: those given, else `count` of the subject's own, or all if there are fewer.

    held_out: prefer conditions that planning does not use. Raises UserError.
    """
    own = subject.conditions
    if given is not None and own and not callable(own):
        raise UserError(f"{subject.name} brings its own {len(own)} conditions; leave --prompts out")
    if given is None:
        given = own(count, held_out) if callable(own) else own[:count]
    if not given:
        raise UserError(f"{subject.name} has no conditions to run on; give it some, or --prompts FILE")
    return list(given)


def holding(subject: Subject, conditions: Sequence[Any]) -> Subject:
    """Returns the subject with these conditions as its own, for labels that do not tell the condition."""
    return (
        subject
        if subject.conditions and not callable(subject.conditions)
        else replace(subject, conditions=tuple(conditions))
    )


def conditions_in(subject: Subject, labels: Sequence[Any]) -> tuple[Any, ...]:
    """The conditions that a profile has labels of: a subject's own, else the labels are they. Raises UserError for a
    digest of what the subject does not give again."""
    own = subject.conditions
    if own and not callable(own):
        return tuple(own[: len(labels)])
    if not any(is_digest(label) for label in labels):
        return tuple(labels)
    drawn = tuple(own(len(labels), False)) if callable(own) else ()
    if labels_of(drawn) != tuple(labels):
        raise UserError(f"the profile's conditions are none that {subject.name} gives, and neither text nor JSON, "
                        "which alone can be kept; let the subject bring them")  # fmt: skip
    return drawn


@torch.no_grad()
def run_subject(subject: Subject, conditions: Sequence[Any], seed: int, batch: int | None = None) -> Tensor:
    """The outputs of all conditions, on the CPU; condition i has the noise of seed + i. batch: at once, all by default.
    Raises UserError where something else comes out."""
    starts = range(0, len(conditions), batch or max(len(conditions), 1))
    found = [checked(subject, conditions[at : at + (batch or len(conditions))], seed + at) for at in starts]
    return torch.cat([part.cpu() for part in found])


def checked(subject: Subject, conditions: Sequence[Any], seed: int) -> Tensor:
    """What `subject.run` gives. Raises UserError where that is not an output a condition."""
    out = subject.run(conditions, seed)
    if not isinstance(out, Tensor) or not out.is_floating_point() or not out.dim() or len(out) != len(conditions):
        what = f"a {out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UserError(f"{subject.name} gave {what} for {len(conditions)} conditions; return floats, one row each")
    return out


def output_of(subject: Subject, out: Tensor) -> str:
    """The kind of output: as the subject says, or by its shape. Raises UserError where both disagree."""
    images, video = out.dim() == 4 and out.shape[1] == 3, out.dim() == 5 and out.shape[2] == 3
    told = "images" if images else "video" if video else "audio" if out.dim() == 3 else "array"
    said = subject.output or told
    if said in ("images", "video") and said != told:
        raise UserError(f"{subject.name} gave {tuple(out.shape)} for {said}, which are {OUTPUTS[said]}")
    return said
