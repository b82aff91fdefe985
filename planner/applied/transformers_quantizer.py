"""BitPlan as a quantizer of transformers, for text encoders that a plan packed: saved and loaded, as diffusers' are.

They are not quantized while they load: transformers renames and merges weights on the way, so that those of the file
cannot be held against the plan.
"""

from __future__ import annotations

from typing import Any

from transformers.quantizers.base import HfQuantizer

from bitplan.planner.applied.config import BitPlanConfig
from bitplan.planner.applied.quantizer import PackedQuantizer
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import mark
from bitplan.plans.layers.modules import stored_names


class TextQuantizer(PackedQuantizer, HfQuantizer):
    """What transformers calls while it loads and saves a component; `quantization_config` is a BitPlanConfig."""

    def __init__(self, quantization_config: BitPlanConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        if not self.pre_quantized:
            raise UserError(f"{quantization_config.component} is a model of transformers, which cannot be quantized "
                            f"while it loads; load the float pipeline and call bitplan.apply")  # fmt: skip

    def is_serializable(self) -> bool:
        return True

    def get_new_dtype(self, converter: Any, param: Any, dtype: Any) -> Any:
        """None, which is to say as stored, for what packed layers hold: scales are float32 whatever is asked."""
        names = {target.rpartition(".")[2] for target in converter.target_patterns}
        stored = {name for scheme in self.quantization_config.layers.values() for name in stored_names(scheme)}
        return None if names & stored else super().get_new_dtype(converter, param, dtype)

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        self.lay_out(model)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Raises UserError where a packed layer stayed empty: transformers only warns."""
        mark(model, self)
        for path in self.quantization_config.layers:
            if any(tensor.is_meta for tensor in model.get_submodule(path).parameters()):
                raise UserError(f"the checkpoint lacks tensors of {path}; save the pipeline again")
            model.get_submodule(path).settle()
