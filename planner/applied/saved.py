"""Refuses to save a packed model that could not be loaded, before anything is written.

The libraries load a model into a fresh one of its class, made from the saved config alone. Layers that were made after
that, such as fused projections or those of an IP-Adapter, are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.configuration_utils import ConfigMixin

from bitplan.planner.applied.quantizer import lay_out_packed
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import METHOD, is_marked
from bitplan.planner.pipelines.quiet import quiet_libraries
from bitplan.planner.texts import one_line
from bitplan.plans.layers.modules import is_packed
from bitplan.plans.layers.stored import without_compute
from bitplan.plans.layers.unpacked import has_packed

KEY = "quantization_config"
_OUT = "keep the plan in its file instead: load the float pipeline, make the same changes, call bitplan.apply"


def save(method: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls the `save_pretrained` of a model, as a wrapper of `wrapt`. Raises UserError as `check_saved`."""
    check_saved(model)
    return method(*args, **kwargs)


def check_saved(model: Any) -> None:
    """Raises UserError for a model with packed layers, or with the config of one, that could not be loaded."""
    packed, said, name = has_packed(model), _says_packed(model), type(model).__name__
    if packed and said and is_marked(model):
        held = model.hf_quantizer.stored_in(model.state_dict())
        _compare(name, held, model.hf_quantizer.once(without_compute(_fresh(model).state_dict())))
    elif packed:
        _check_borrowed(name, model)
    elif said:
        raise UserError(f"this {name} has float layers and the config of a packed model, with which it could not be "
                        f"loaded; make it from that config without its entry {KEY}")  # fmt: skip


def _check_borrowed(name: str, model: Any) -> None:
    """Raises UserError for packed layers of another model in places where a fresh model has layers of its own; places
    that are empty in it, as in the ControlNet of Z-Image, are filled again from that model."""
    with quiet_libraries():
        fresh = _from_config(model).state_dict()
    for path, layer in model.named_modules():
        if f"{path}.weight" in fresh and is_packed(layer):
            raise UserError(f"this {name} holds packed layers of another model, such as {path}, which its config does "
                            f"not name, so that it could not be loaded; save that model")  # fmt: skip


def _says_packed(model: Any) -> bool:
    found = getattr(model.config, KEY, None)
    method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    return bool(method == METHOD)


def _fresh(model: Any) -> Any:
    """What the libraries make from the config that is to be saved, with its packed layers laid out."""
    name = type(model).__name__
    try:
        with quiet_libraries(), torch.no_grad():
            made = _from_config(model)
            lay_out_packed(made, model.hf_quantizer.quantization_config)
    except Exception as error:  # whatever it is, loading would meet it too
        raise UserError(f"the saved {name} could not be loaded: {one_line(error)}; {_OUT}") from None
    return made


def _from_config(model: Any) -> Any:
    """A float model without data of the config that is to be saved."""
    if isinstance(model, ConfigMixin):
        content = json.loads(model.to_json_string())
        with init_empty_weights():
            return type(model).from_config({key: value for key, value in content.items() if key != KEY})
    content = json.loads(model.config.to_json_string(use_diff=False))
    own = type(model.config).from_dict({key: value for key, value in content.items() if key != KEY})
    with torch.device("meta"):
        return type(model)(own)


def _compare(name: str, held: dict[str, torch.Tensor], fresh: dict[str, torch.Tensor]) -> None:
    """Raises UserError for a tensor that only one of them has, or that has other shapes."""
    if more := [key for key in held if key not in fresh]:
        raise UserError(f"the saved {name} could not be loaded: {len(more)} of its {len(held)} tensors, such as "
                        f"{more[0]}, have no place in a {name} made from its config; remove what was added, such as "
                        f"by unload_ip_adapter, or {_OUT}")  # fmt: skip
    if less := [key for key in fresh if key not in held]:
        raise UserError(f"the saved {name} could not be loaded: it lacks {len(less)} tensors of a {name} made from its "
                        f"config, such as {less[0]}; {_OUT}")  # fmt: skip
    for key, tensor in held.items():
        if tensor.shape != fresh[key].shape:
            raise UserError(f"the saved {name} could not be loaded: {key} has shape {tuple(tensor.shape)}, and "
                            f"{tuple(fresh[key].shape)} by its config; {_OUT}")  # fmt: skip
