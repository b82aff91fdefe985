"""A plan as the `quantization_config` of `from_pretrained`, and as that of a component it was applied to."""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin
from diffusers.quantizers import PipelineQuantizationConfig
from transformers import PreTrainedModel

from bitplan.planner.applied.checkpoint import CheckpointState
from bitplan.planner.applied.config import BitPlanConfig, component_config
from bitplan.planner.applied.diffusers_quantizer import BitPlanQuantizer
from bitplan.planner.applied.transformers_quantizer import TextQuantizer
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import is_marked, mark, set_quantization_config
from bitplan.plans.kernels import KernelError
from bitplan.plans.plan import Plan


def loading_config(
    plan: Plan, component: str | None, kernels: str, allow_mismatch: bool
) -> PipelineQuantizationConfig | BitPlanConfig:
    """For the pipeline, or for one of its components. Raises UserError for a component that the plan does not name, and
    for one of several alone: the plan's fingerprint is of them together."""
    planned = _planned(plan)
    if component is None:
        expected = CheckpointState(plan, allow_mismatch, frozenset(planned))
        return PipelineQuantizationConfig(
            quant_mapping={name: component_config(plan, name, kernels, expected) for name in planned}
        )
    if component not in planned:
        raise UserError(f"the plan has no component {component!r}; it has {', '.join(planned)}")
    if len(planned) > 1 and not allow_mismatch:
        raise UserError(f"the plan's fingerprint is of {' and '.join(planned)} together, so {component} alone cannot "
                        f"be checked; load the pipeline, or give allow_mismatch=True")  # fmt: skip
    return component_config(plan, component, kernels, CheckpointState(plan, allow_mismatch, frozenset([component])))


def can_load_packed(plan: Plan, folder: str) -> bool:
    """Whether all that the plan packs is of diffusers in this pipeline; folder: or hub id."""
    try:
        index = DiffusionPipeline.load_config(folder)
    except Exception:  # whatever it is, loading the pipeline says it better
        return False
    entries = [index.get(name) for name in plan.model["components"]] if isinstance(index, dict) else [None]
    return all(isinstance(entry, (list, tuple)) and [*entry[:1]] == ["diffusers"] for entry in entries)


def check_packed(pipe: Any, config: PipelineQuantizationConfig) -> None:
    """Raises UserError where diffusers passed over our config, as it does where the files bring their own, and
    KernelError where nothing runs a layer on its device."""
    for name, own in config.quant_mapping.items():
        model = pipe.components.get(name)
        if not is_marked(model) or model.hf_quantizer.quantization_config is not own:
            raise UserError(f"the {name} of this pipeline was saved with a plan of its own; load it without another")
        for path in own.layers:
            try:
                _ = model.get_submodule(path).kernel
            except KernelError as error:
                raise KernelError(f"{name}.{path}: {error}") from None


def _planned(plan: Plan) -> list[str]:
    """The components that have layers in the plan. Raises UserError where it says that it has no such component."""
    planned = list(dict.fromkeys(address.partition(".")[0] for address in plan.schemes))
    if foreign := sorted(set(planned) - set(plan.model["components"])):
        raise UserError(f"the plan is for {', '.join(plan.model['components'])} and names layers of {foreign[0]}; "
                        f"solve again")  # fmt: skip
    return planned


def mark_applied(plan: Plan, component: str, model: Any, kernels: str) -> None:
    """Lets `model`, whose layers were swapped as the plan says, be saved with it."""
    config = component_config(plan, component, kernels)
    if isinstance(model, ModelMixin):
        mark(model, BitPlanQuantizer(config))
    elif isinstance(model, PreTrainedModel):
        mark(model, TextQuantizer(config))
    else:
        return
    set_quantization_config(model, config)
