"""The methods of diffusers and transformers that BitPlan wraps, when their files are imported. Imports no torch.

Process-wide effect: the methods do the same as before for models without packed layers. There is no other place where
packed models can be noticed before a file is written, before their blocks are compiled, before their weights are copied
by name, or before the first layer of a pipeline is changed.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import Any

import wrapt

from bitplan.planner.applied.free_noise import check_turning
from bitplan.planner.applied.fusing import check_fusing
from bitplan.planner.applied.widening import keep_packed, put_packed_back

Row = tuple[str, str, str, Any]  # file, class, method, what is called in its place


def _derive(*call: Any) -> Any:
    from bitplan.planner.applied.derived import derive

    return derive(*call)


def _save(*call: Any) -> Any:
    from bitplan.planner.applied.saved import save

    return save(*call)


def _compile(*call: Any) -> Any:
    from bitplan.planner.applied.regional import compile_blocks

    return compile_blocks(*call)


_LORAS, _CONTROLNETS = "diffusers.loaders.lora", "diffusers.models.controlnets.controlnet"
_MOTION, _BLOCK = "diffusers.models.unets.unet_motion_model", "ControlNetXSCrossAttn{}Block2D"
_FREE_NOISE = "diffusers.pipelines.free_noise_utils"
WRAPPERS: tuple[Row, ...] = (
    (f"{_LORAS}_base", "LoraBaseMixin", "fuse_lora", check_fusing),
    (f"{_LORAS}_pipeline", "FluxLoraLoaderMixin", "load_lora_weights", keep_packed),
    (f"{_LORAS}_pipeline", "FluxLoraLoaderMixin", "unload_lora_weights", put_packed_back),
    ("diffusers.models.modeling_utils", "ModelMixin", "save_pretrained", _save),
    ("diffusers.models.modeling_utils", "ModelMixin", "compile_repeated_blocks", _compile),
    ("transformers.modeling_utils", "PreTrainedModel", "save_pretrained", _save),
    (_CONTROLNETS, "ControlNetModel", "from_unet", _derive),
    (f"{_CONTROLNETS}_flux", "FluxControlNetModel", "from_transformer", _derive),
    (f"{_CONTROLNETS}_hunyuan", "HunyuanDiT2DControlNetModel", "from_transformer", _derive),
    (f"{_CONTROLNETS}_qwenimage", "QwenImageControlNetModel", "from_transformer", _derive),
    (f"{_CONTROLNETS}_sd3", "SD3ControlNetModel", "from_transformer", _derive),
    (f"{_CONTROLNETS}_sd3", "SD3ControlNetModel", "_get_pos_embed_from_transformer", _derive),
    (f"{_CONTROLNETS}_sparsectrl", "SparseControlNetModel", "from_unet", _derive),
    (f"{_CONTROLNETS}_union", "ControlNetUnionModel", "from_unet", _derive),
    (f"{_CONTROLNETS}_xs", "UNetControlNetXSModel", "from_unet", _derive),
    *((f"{_CONTROLNETS}_xs", _BLOCK.format(where), "from_modules", _derive) for where in ("Down", "Mid", "Up")),
    (_MOTION, "UNetMotionModel", "from_unet2d", _derive),
    (_MOTION, "UNetMotionModel", "load_motion_modules", _derive),
    (_MOTION, "UNetMotionModel", "save_motion_modules", _derive),
    (_FREE_NOISE, "AnimateDiffFreeNoiseMixin", "enable_free_noise", check_turning),
    (_FREE_NOISE, "AnimateDiffFreeNoiseMixin", "disable_free_noise", check_turning),
)


def wrap() -> None:
    """Wraps the methods, now or when their file is imported. A method that this version lacks is passed over."""
    for file, owner, method, wrapper in WRAPPERS:
        wrapt.when_imported(file)(partial(_wrap, owner=owner, method=method, wrapper=wrapper))


def unwrap() -> None:
    """Undoes `wrap` in those of the files that are imported."""
    for file, owner, method, wrapper in WRAPPERS:
        made = getattr(sys.modules.get(file), owner, None)
        if made and _is_wrapped(made, method, wrapper):
            setattr(made, method, vars(made)[method].__wrapped__)


def _wrap(file: ModuleType, owner: str, method: str, wrapper: Any) -> None:
    if hasattr(getattr(file, owner, None), method) and not _is_wrapped(getattr(file, owner), method, wrapper):
        wrapt.wrap_function_wrapper(file, f"{owner}.{method}", wrapper)


def _is_wrapped(owner: Any, method: str, wrapper: Any) -> bool:
    return getattr(vars(owner).get(method), "_self_wrapper", None) is wrapper
