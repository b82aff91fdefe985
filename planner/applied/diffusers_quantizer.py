"""BitPlan as a quantizer of diffusers: makes empty packed layers, and fills them while files are read.

The files of a packed component contain the packed tensors. The weights of a float component are quantized one at a time
while their file is read, from the values in the plan's float type, whatever `torch_dtype` is. The codes therefore equal
those of `bitplan.apply` on a pipeline of that type, and the float weights are never in memory together.
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
from bitplan.plans.layers.alignment import align
from bitplan.plans.layers.attention import Piece
from bitplan.plans.layers.opening import holders
from bitplan.plans.layers.stored import COMPUTE, Stored, stored_names, stored_tensors
from bitplan.plans.numerics import NONE
from bitplan.plans.plan import dtype_of


class BitPlanQuantizer(PackedQuantizer, DiffusersQuantizer):
    """Implements the methods that diffusers calls while it loads and saves a component.

    `quantization_config` is a BitPlanConfig.
    """

    use_keep_in_fp32_modules = True  # modules that the model's class keeps in float32 stay in it

    def __init__(self, quantization_config: BitPlanConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.files: list[Any] | None = None
        self.keys: list[str] = []
        self.checkpoint: Checkpoint | None = None
        self.pieces: dict[str, tuple[str, Piece]] = {}
        self.replaced: dict[str, Any] = {}  # path -> the packed layer in whose place a wider one is
        if not self.pre_quantized and quantization_config.expected is None:
            raise UserError("this config belongs to weights that are packed already; bitplan.config makes one for a "
                            "float model")  # fmt: skip

    @property
    def supports_parallel_loading(self) -> bool:
        return self.pre_quantized  # float files are read one at a time, to limit memory

    @property
    def is_serializable(self) -> bool:
        return True

    def get_state_dict_and_metadata(
        self, state_dict: dict[str, Any], safe_serialization: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `stored_in`."""
        return self.stored_in(state_dict), {}

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: list[str]) -> list[str]:
        """Returns the list of keys in the files; `_expect` changes it, in place, to those of packed weights."""
        self.files, self.keys = list(checkpoint_files), list(loaded_keys)
        return self.keys

    def _expect(self, model: Any) -> None:
        """Maps the tensors of float files to packed tensors, and updates the list of keys in place."""
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
        """Returns the key of each tensor that is split -> the keys of its parts."""
        parts: dict[str, list[str]] = {}
        for part, (whole, _) in self.pieces.items():
            parts.setdefault(whole, []).append(part)
        return parts

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
                model.get_submodule(path).compute.data = torch.empty(0, dtype=torch.float32, device="cpu")

    def update_missing_keys(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        """Raises UserError if layers would stay empty, because diffusers only warns."""
        layers = self.quantization_config.layers
        missing_keys = [key for key in missing_keys if key.rpartition(".")[2] != COMPUTE]
        missing = sorted(key for key in missing_keys if self.pre_quantized or key.rpartition(".")[0] in layers)
        if missing:
            raise UserError(f"the checkpoint lacks {len(missing)} tensors, such as {missing[0]}; save the pipeline "
                            f"again, or take the one that the plan was made for")  # fmt: skip
        return missing_keys

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Replaces each planned weight among one file's tensors by its packed tensors."""
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
        # the tensor of diffusers is a view of the whole file, whose pages would stay in memory once read
        weight = checkpoint.read(f"{path}.weight").float()
        try:
            packed = stored_tensors(weight, config.layers[path], config.fitted.get(path, NONE))
        except (ActivationError, FormatError) as error:
            raise type(error)(f"{config.component}.{path}: {error}") from error
        return ((f"{path}.{name}", tensor) for name, tensor in packed.items())

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
        """Assigns a packed tensor to its layer. `param_value` is cast to `torch_dtype`, which scales must not be."""
        path, _, name = param_name.rpartition(".")
        stored, layer = state_dict[param_name], model.get_submodule(path)
        if stored.dtype != getattr(layer, name).dtype:
            raise UserError(f"{param_name} is {stored.dtype} in the checkpoint and {getattr(layer, name).dtype} by its "
                            f"config.json; save the pipeline again")  # fmt: skip
        layer._parameters[name] = Stored(stored.to(target_device))

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        self.checkpoint = self.files = None
        self.check_loaded(model)
        align(model)
        mark(model, self)

    def _dequantize(self, model: Any) -> None:
        raise UserError("the packed model does not contain the float weights; load the float pipeline")
