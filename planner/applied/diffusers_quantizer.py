"""BitPlan as a quantizer of diffusers: packed layers are laid out without data, and filled from what is read.

A component that was saved packed holds their tensors under their own names. Of a float one, each weight is quantized
as its file is read, from the values in the file in the plan's float type whatever `torch_dtype` says, so that the
codes are those that `bitplan.apply` gives the pipeline of that type; the float weights are never there together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.quantizers.base import DiffusersQuantizer
from torch import Tensor

from bitplan.planner.applied.checkpoint import Checkpoint, open_checkpoint, pieces_in
from bitplan.planner.applied.config import BitPlanConfig
from bitplan.planner.applied.quantizer import PackedQuantizer
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import mark
from bitplan.plans.formats.base import FormatError
from bitplan.plans.inputs.base import ActivationError
from bitplan.plans.layers.attention import Piece
from bitplan.plans.layers.modules import stored_names, stored_tensors
from bitplan.plans.layers.opening import holders
from bitplan.plans.layers.stored import Stored
from bitplan.plans.numerics import NONE
from bitplan.plans.plan import dtype_of


class BitPlanQuantizer(PackedQuantizer, DiffusersQuantizer):
    """What diffusers calls while it loads and saves a component; `quantization_config` is a BitPlanConfig."""

    use_keep_in_fp32_modules = True  # what a model's class wants in float32 stays so

    def __init__(self, quantization_config: BitPlanConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.files: list[Any] | None = None
        self.keys: list[str] = []
        self.checkpoint: Checkpoint | None = None
        self.pieces: dict[str, tuple[str, Piece]] = {}
        if not self.pre_quantized and quantization_config.expected is None:
            raise UserError("this config belongs to weights that are packed already; bitplan.config makes one for a "
                            "float model")  # fmt: skip

    @property
    def supports_parallel_loading(self) -> bool:
        return self.pre_quantized  # float files are read one at a time, so that they need not fit together

    @property
    def is_serializable(self) -> bool:
        return True

    def get_state_dict_and_metadata(
        self, state_dict: dict[str, Any], safe_serialization: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is saved. Raises UserError where an adapter is loaded: its layers would be saved under other names."""
        if any(".base_layer." in key for key in state_dict):
            raise UserError("a LoRA is loaded, which save_pretrained would mix into the packed layers; call "
                            "save_lora_weights and unload_lora_weights first")  # fmt: skip
        return state_dict, {}

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: list[str]) -> list[str]:
        """The list of keys in the files; it becomes that of the keys they will have had once their weights are packed,
        as soon as the model is there, which knows its attentions."""
        self.files, self.keys = list(checkpoint_files), list(loaded_keys)
        return self.keys

    def _expect(self, model: Any) -> None:
        """Of float files: which of their tensors go into what, and how that is then called."""
        name, layers = self.quantization_config.component, self.quantization_config.layers
        self.pieces = pieces_in(model, holders({name: model}, (f"{name}.{path}" for path in layers)))
        parts = self._parts()
        packed = {f"{path}.weight": stored_names(scheme) for path, scheme in layers.items()}
        self.keys[:] = [
            f"{part.removesuffix('weight')}{name}" if part in packed else part
            for key in self.keys
            for part in parts.get(key, [key])
            for name in packed.get(part, ("",))
        ]

    def _parts(self) -> dict[str, list[str]]:
        """Keys of tensors that are taken apart, with those of the parts."""
        found: dict[str, list[str]] = {}
        for part, (whole, _) in self.pieces.items():
            found.setdefault(whole, []).append(part)
        return found

    def _process_model_before_weight_loading(
        self, model: Any, keep_in_fp32_modules: list[str] | None = None, **kwargs: Any
    ) -> None:
        config = self.quantization_config
        if self.files is None:
            raise UserError("a plan cannot be used with from_single_file; load the float pipeline, save_pretrained it "
                            "and load that folder")  # fmt: skip
        if not self.pre_quantized and config.expected is not None:
            self.checkpoint = open_checkpoint(self.files, model, dtype_of([config.expected.plan]))
            config.expected.meet(config.component, model, self.checkpoint)
            self._expect(model)
        self.lay_out(model)
        for path in config.layers:
            if set(path.split(".")) & set(keep_in_fp32_modules or ()):
                model.get_submodule(path).compute = torch.empty(0, dtype=torch.float32)

    def update_missing_keys(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        """Raises UserError where layers would stay empty: diffusers only warns."""
        layers = self.quantization_config.layers
        gone = sorted(key for key in missing_keys if self.pre_quantized or key.rpartition(".")[0] in layers)
        if gone:
            raise UserError(f"the checkpoint lacks {len(gone)} tensors, such as {gone[0]}; save the pipeline again, or "
                            f"take the one that the plan was made for")  # fmt: skip
        return missing_keys

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """One file's tensors, each planned weight replaced by what it is stored as."""
        if self.checkpoint is not None:
            for whole, parts in self._parts().items():
                if (tensor := state_dict.pop(whole, None)) is not None:
                    state_dict.update({part: self.pieces[part][1].of(tensor).clone() for part in parts})
            for path in self.quantization_config.layers:
                if state_dict.pop(f"{path}.weight", None) is not None:
                    state_dict.update(self._quantized(path, self.checkpoint))
        return state_dict

    def _quantized(self, path: str, checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
        config = self.quantization_config
        # not the tensor that was given: it is a view of the whole file, and what is touched of that stays in memory
        weight = checkpoint.read(f"{path}.weight").float()
        try:
            found = stored_tensors(weight, config.layers[path], config.fitted.get(path, NONE))
        except (ActivationError, FormatError) as error:
            raise type(error)(f"{config.component}.{path}: {error}") from error
        return ((f"{path}.{name}", tensor) for name, tensor in found.items())

    def check_if_quantized_param(self, model: Any, param_value: Tensor, param_name: str, *args: Any, **kw: Any) -> bool:
        path, _, name = param_name.rpartition(".")
        scheme = self.quantization_config.layers.get(path)
        return scheme is not None and name in stored_names(scheme)

    def check_quantized_param_shape(self, param_name: str, current: Any, loaded: Tensor) -> bool:
        raise UserError(f"{param_name} has shape {tuple(loaded.shape)} in the checkpoint and {tuple(current.shape)} by "
                        f"its config.json; save the pipeline again")  # fmt: skip

    def create_quantized_param(
        self,
        model: Any,
        param_value: Tensor,
        param_name: str,
        target_device: Any,
        state_dict: Any,
        *args: Any,
        **kw: Any,
    ) -> None:
        """Puts a stored tensor in its place. The one given is cast to `torch_dtype` already: scales must not be."""
        path, _, name = param_name.rpartition(".")
        stored, layer = state_dict[param_name], model.get_submodule(path)
        if stored.dtype != getattr(layer, name).dtype:
            raise UserError(f"{param_name} is {stored.dtype} in the checkpoint and {getattr(layer, name).dtype} by its "
                            f"config.json; save the pipeline again")  # fmt: skip
        layer._parameters[name] = Stored(stored.to(target_device))

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        self.checkpoint = self.files = None
        for path in self.quantization_config.layers:
            model.get_submodule(path).settle()
        mark(model, self)

    def _dequantize(self, model: Any) -> None:
        raise UserError("the float weights are not kept beside the packed ones; load the float pipeline")
