"""Applies plans to pipelines, loads pipelines with plans, and restores the float layers."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from bitplan.planner.applied.binding import bind_and_swap
from bitplan.planner.applied.loading import can_load_packed, check_packed, loading_config, mark_applied
from bitplan.planner.applied.widening import check_not_widened
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.additions import check_additions, original
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.marks import is_marked, unmark
from bitplan.planner.pipelines.places import locate
from bitplan.planner.pipelines.references import is_reference
from bitplan.planner.pipelines.sources import check_options_of, float_components, load_pipeline, load_subject
from bitplan.planner.pipelines.subject import Subject, subject_of
from bitplan.planner.pipelines.weights import Weights, weights_for
from bitplan.plans.layers.alignment import align
from bitplan.plans.layers.put_back import put_back
from bitplan.plans.layers.swap import Swap
from bitplan.plans.plan import Plan


@dataclass(frozen=True, eq=False)
class Applied:
    """A plan in components.

    Attributes:
        swap: what was replaced, without its places, which are found anew.
        parts: name -> component; weak, because `_APPLIED` must not keep the components.
    """

    swap: Swap
    parts: Mapping[str, weakref.ReferenceType[nn.Module]]

    @property
    def components(self) -> dict[str, nn.Module]:
        """The components that are still there."""
        return {name: part for name, reference in self.parts.items() if (part := reference())}


# Component -> the plan in it. Pipelines share components, which stay as their libraries made them.
_APPLIED: weakref.WeakKeyDictionary[nn.Module, Applied] = weakref.WeakKeyDictionary()


def apply_plan(
    pipe: Any, plan: Plan, kernels: str = "int", allow_mismatch: bool = False, keep_originals: bool = True
) -> Swap:
    """Swap the layers of `pipe` in place, as `plan` says.

    kernels: `int` computes with the stored codes, `fake` simulates. allow_mismatch: take a plan of another model with
    the same layers. keep_originals: hold the float weights for `restore`. Raises UserError, PlanError for a plan that
    does not fit, KernelError for a scheme that no kernel runs here.
    """
    if applied_to(pipe):
        raise UserError("this pipeline has a plan applied already; call bitplan.restore(pipe) first")
    parts = float_components(pipe, plan.model["components"])
    check_additions(parts, "applying")
    swapped = bind_and_swap(plan, parts, kernels == "int", allow_mismatch, keep_originals)
    _remember(swapped, parts)
    try:
        for name, part in parts.items():
            align(part)
            mark_applied(plan, name, part, kernels)
    except BaseException:
        if keep_originals:
            restore_pipeline(pipe)
        raise
    return swapped


def _remember(swap: Swap, parts: Mapping[str, nn.Module]) -> None:
    without_places = replace(swap, layers=tuple(replace(layer, places=()) for layer in swap.layers))
    applied = Applied(without_places, {name: weakref.ref(part) for name, part in parts.items()})
    for part in parts.values():
        _APPLIED[part] = applied


def applied_to(pipe: Any) -> list[Applied]:
    """The plans in the components of `pipe`, also if they were applied to a pipeline with which it shares them."""
    parts = (original(part) for part in pipe.components.values() if isinstance(part, nn.Module))
    return list(dict.fromkeys(_APPLIED[part] for part in parts if part in _APPLIED))


def load_applied(
    pipeline: str, plan: Plan, kernels: str, allow_mismatch: bool, variant: str | None = None
) -> Any:  # fmt: skip
    """The pipeline named `pipeline` with the plan in it for good. Raises as `apply_plan` and `load_pipeline`.

    With real kernels each weight is packed as it is read, and no more memory is needed than the packed pipeline takes.
    """
    weights = weights_for([plan], variant)
    if kernels == "int" and can_load_packed(plan, locate(pipeline)):
        config = loading_config(plan, None, kernels, allow_mismatch)
        pipe = load_pipeline(pipeline, weights, config)
        check_packed(pipe, config)
    else:
        pipe = load_pipeline(pipeline, weights)
        apply_plan(pipe, plan, kernels, allow_mismatch, keep_originals=False)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            align(part)
    return pipe


def load_planned(
    pipeline: str | Subject, plan: Plan | None, generation: Generation, kernels: str, allow_mismatch: bool,
    variant: str | None = None,
) -> Subject:  # fmt: skip
    """What `pipeline` names, as `load_subject` says, with the plan in it where there is one. Raises as `apply_plan`."""
    if plan is None:
        return load_subject(pipeline, generation, Weights(variant=variant))
    if isinstance(pipeline, str) and not is_reference(pipeline):
        check_options_of(pipeline, generation)
        return subject_of(load_applied(pipeline, plan, kernels, allow_mismatch, variant), generation, pipeline)
    subject = load_subject(pipeline, generation, weights_for([plan], variant))
    apply_plan(subject, plan, kernels, allow_mismatch)
    return subject


def restore_pipeline(pipe: Any) -> None:
    """Put the float layers back, in the place, the float type and on the device of the quantized ones, with what was
    added to them since.

    Raises UserError when nothing is applied, for what was added that moves or casts weights, or for a layer that a
    Control LoRA widened, SwapError as `put_back`.
    """
    plans = applied_to(pipe)
    if not plans:
        if any(is_marked(part) for part in pipe.components.values()):
            raise UserError("this pipeline was loaded, or copied, with its plan: its float weights were never here; "
                            "load the float pipeline")  # fmt: skip
        raise UserError("no plan is applied to this pipeline; there is nothing to restore")
    for applied in plans:
        check_additions(applied.components, "restoring")
        check_not_widened(applied.components)
        put_back(applied.components, applied.swap)
        for part in applied.components.values():
            if is_marked(part):
                unmark(part)
        for part in applied.components.values():
            del _APPLIED[part]  # last, so that one that was interrupted can be repeated
