"""BitPlan as a quantizer of transformers, for text encoders that a plan packed: saved and loaded, as diffusers' are.

They are not quantized while they load: transformers renames and merges weights on the way, so that those of the file
cannot be held against the plan.
"""

from __future__ import annotations

from typing import Any

from transformers.quantizers.base import HfQuantizer

from planner.errors import UserError
from planner.loading.config import BitPlanConfig
from planner.loading.marking import check_device_map, mark
from plans.modules import STORED
from plans.swap import lay_out


class TextQuantizer(HfQuantizer):
    """What transformers calls while it loads and saves a component; `quantization_config` is a BitPlanConfig."""

    quantization_config: BitPlanConfig

    def __init__(self, quantization_config: BitPlanConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        if not self.pre_quantized:
            raise UserError(f"{quantization_config.component} is a model of transformers, which cannot be quantized "
                            f"while it loads; load the float pipeline and call planner.apply")  # fmt: skip

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Raises UserError for a device map with `disk`."""
        check_device_map(device_map)

    def get_new_dtype(self, converter: Any, param: Any, dtype: Any) -> Any:
        """None, which is to say as stored, for what packed layers hold: scales are float32 whatever is asked."""
        names = {target.rpartition(".")[2] for target in converter.target_patterns}
        return None if names & set(STORED) else super().get_new_dtype(converter, param, dtype)

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        config, name = self.quantization_config, self.quantization_config.component
        lay_out({name: model}, {f"{name}.{path}": s for path, s in config.layers.items()}, config.kernels == "int")

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Raises UserError where a packed layer stayed empty: transformers only warns."""
        mark(model, self)
        for path in self.quantization_config.layers:
            if any(tensor.is_meta for tensor in model.get_submodule(path).parameters()):
                raise UserError(f"the checkpoint lacks tensors of {path}; save the pipeline again")
            model.get_submodule(path).settle()
