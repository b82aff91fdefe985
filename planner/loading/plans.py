"""A plan as the `quantization_config` of `from_pretrained`, and as that of a component it was applied to."""

from __future__ import annotations

from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from diffusers.quantizers import PipelineQuantizationConfig

from planner.errors import UserError
from planner.loading.config import BitPlanConfig, component_config
from planner.loading.expected import Expected
from planner.loading.marking import mark
from planner.loading.quantizer import BitPlanQuantizer
from plans.plan import Plan


def loading_config(
    plan: Plan, component: str | None, kernels: str, allow_mismatch: bool
) -> PipelineQuantizationConfig | BitPlanConfig:
    """For the pipeline, or for one of its components. Raises UserError for a component that the plan does not name, and
    for one of several alone: the plan's fingerprint is of them together."""
    planned = list(dict.fromkeys(address.partition(".")[0] for address in plan.schemes))
    if component is None:
        expected = Expected(plan, allow_mismatch, frozenset(planned))
        return PipelineQuantizationConfig(
            quant_mapping={name: component_config(plan, name, kernels, expected) for name in planned}
        )
    if component not in planned:
        raise UserError(f"the plan has no component {component!r}; it has {', '.join(planned)}")
    if len(planned) > 1 and not allow_mismatch:
        raise UserError(f"the plan's fingerprint is of {' and '.join(planned)} together, so {component} alone cannot be "
                        f"checked; load the pipeline, or give allow_mismatch=True")  # fmt: skip
    return component_config(plan, component, kernels, Expected(plan, allow_mismatch, frozenset([component])))


def mark_applied(plan: Plan, component: str, model: Any, kernels: str) -> None:
    """Lets `model`, whose layers were swapped as the plan says, be saved with it."""
    if isinstance(model, ModelMixin):
        mark(model, BitPlanQuantizer(component_config(plan, component, kernels)))
