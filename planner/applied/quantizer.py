"""The methods that the quantizers of diffusers and transformers share."""

from __future__ import annotations

from typing import Any

from bitplan.planner.applied.config import BitPlanConfig
from bitplan.planner.errors import UserError
from bitplan.plans.formats.base import FormatError
from bitplan.plans.inputs.base import ActivationError
from bitplan.plans.layers.checks import check_finite
from bitplan.plans.layers.swap import lay_out


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
        """Puts empty packed layers into the component's model. Raises as `bitplan.plans.layers.swap.lay_out`."""
        config, name = self.quantization_config, self.quantization_config.component
        lay_out({name: model}, {f"{name}.{path}": s for path, s in config.layers.items()}, config.kernels == "int")
