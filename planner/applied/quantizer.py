"""The methods that the quantizers of diffusers and transformers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitplan.planner.applied.config import BitPlanConfig
from bitplan.planner.applied.widening import RESET
from bitplan.planner.errors import UserError
from bitplan.plans.formats.base import FormatError
from bitplan.plans.inputs.base import ActivationError
from bitplan.plans.layers.checks import check_finite
from bitplan.plans.layers.stored import stored_names, without_compute
from bitplan.plans.layers.swap import lay_out
from bitplan.plans.layers.ties import memory_of


def lay_out_packed(model: Any, config: BitPlanConfig) -> None:
    """Puts empty packed layers into the component's model. Raises as `bitplan.plans.layers.swap.lay_out`."""
    name = config.component
    lay_out({name: model}, {f"{name}.{path}": s for path, s in config.layers.items()}, config.kernels == "int")


class PackedQuantizer:
    """A mixin in front of either library's base class: packed layers can be saved and compiled, but not trained."""

    quantization_config: BitPlanConfig

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Raises UserError for a device map with `disk`, because the libraries would cast packed tensors there."""
        if isinstance(device_map, dict) and "disk" in map(str, device_map.values()):
            raise UserError("packed layers cannot be offloaded to disk; give max_memory, or use group offloading")

    def stored_in(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the tensors to save. Raises UserError if an adapter is loaded, because it renames the layers, and if
        something else is in the place of a packed layer."""
        if any(".base_layer." in key for key in state_dict):
            raise UserError("a LoRA is loaded, which save_pretrained would mix into the packed layers; call "
                            "save_lora_weights and unload_lora_weights first")  # fmt: skip
        for path, scheme in self.quantization_config.layers.items():
            if any(f"{path}.{name}" not in state_dict for name in stored_names(scheme)):
                address = f"{self.quantization_config.component}.{path}"
                raise UserError(f"{address} is {scheme} in the plan, but another layer is in its place; after a "
                                f"Control LoRA call {RESET}, else load the packed pipeline again")  # fmt: skip
        return self.once(without_compute(state_dict))

    def once(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the tensors of each packed layer under one name, the first, where it has several places."""
        stored = {name for scheme in self.quantization_config.layers.values() for name in stored_names(scheme)}
        first: dict[Any, str] = {}
        return {
            key: tensor
            for key, tensor in tensors.items()
            if key.rpartition(".")[2] not in stored or first.setdefault(memory_of(tensor), key) == key
        }

    def check_loaded(self, model: Any) -> None:
        """Raises UserError for a packed layer whose stored numbers are none that BitPlan saves."""
        for path in self.quantization_config.layers:
            layer = model.get_submodule(path)
            try:
                layer.settle()
                check_finite(layer)
            except (ActivationError, FormatError) as error:
                name = f"{self.quantization_config.component}.{path}"
                raise UserError(f"{name}: {error}; the file is damaged, save the pipeline again") from None

    def lay_out(self, model: Any) -> None:
        """As `lay_out_packed`."""
        lay_out_packed(model, self.quantization_config)
