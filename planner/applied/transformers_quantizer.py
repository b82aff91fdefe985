"""BitPlan as a quantizer of transformers: saves and loads packed text encoders, as for models of diffusers.

Float text encoders are not quantized while they load, because transformers renames and merges weights, so that those of
the file cannot be compared with the plan.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers.quantizers.base import HfQuantizer

from bitplan.planner.applied.config import BitPlanConfig
from bitplan.planner.applied.quantizer import PackedQuantizer
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import mark
from bitplan.plans.layers.addresses import addresses
from bitplan.plans.layers.alignment import align
from bitplan.plans.layers.modules import is_packed
from bitplan.plans.layers.stored import COMPUTE, stored_names


class TextQuantizer(PackedQuantizer, HfQuantizer):
    """Implements the methods that transformers calls while it loads and saves a component.

    `quantization_config` is a BitPlanConfig.
    """

    def __init__(self, quantization_config: BitPlanConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        if not self.pre_quantized:
            raise UserError(f"{quantization_config.component} is a model of transformers, which cannot be quantized "
                            f"while it loads; load the float pipeline and call bitplan.apply")  # fmt: skip

    def is_serializable(self) -> bool:
        return True

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.stored_in(model.state_dict()), {}

    def get_new_dtype(self, converter: Any, param: Any, dtype: Any) -> Any:
        """Returns None, which keeps the stored type, for packed tensors: scales are float32 whatever `dtype` is."""
        names = {target.rpartition(".")[2] for target in converter.target_patterns}
        stored = {name for scheme in self.quantization_config.layers.values() for name in stored_names(scheme)}
        return None if names & stored else super().get_new_dtype(converter, param, dtype)

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        _tie_weights(model, self.quantization_config.layers)
        self.lay_out(model)
        # files lack one parameter of each packed layer, for which transformers would initialize the whole layer
        for path in self.quantization_config.layers:
            model.get_submodule(path)._is_hf_initialized = True
        _tie_stored(model)
        model._keys_to_ignore_on_load_missing = {*(model._keys_to_ignore_on_load_missing or ()), rf"\.{COMPUTE}$"}

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Raises UserError if a packed layer stayed empty, because transformers only warns."""
        mark(model, self)
        for path in self.quantization_config.layers:
            if any(tensor.is_meta for tensor in model.get_submodule(path).parameters()):
                raise UserError(f"the checkpoint lacks tensors of {path}; save the pipeline again")
        self.check_loaded(model)
        align(model)


def _tie_weights(model: Any, packed: Collection[str]) -> None:
    """Ties the float weights that are to be one packed layer, which transformers would do after loading."""
    for pair in model.all_tied_weights_keys.items():
        target, source = (name.rpartition(".")[0] for name in pair)
        if len({target, source} & {*packed}) == 1:
            model.get_submodule(target).weight = model.get_submodule(source).weight


def _tie_stored(model: Any) -> None:
    """Tells transformers that files have the tensors of a packed layer with several places once: where it would tie the
    float weights of these places, it finds the stored tensors tied."""
    tied: dict[str, str] = dict(model.all_tied_weights_keys)
    for module, (path, *others) in addresses({"": model}).items():
        if is_packed(module):
            for other in others:
                tied.pop(f"{other}.weight"[1:], None)
                tied |= {f"{other}.{name}"[1:]: f"{path}.{name}"[1:] for name in (*module.parts, *module.fits)}
    model.all_tied_weights_keys = tied
