"""Control LoRAs on a packed Flux: the packed layer comes back when the LoRA is unloaded, or when it fails to load.

A Control LoRA takes more inputs than the model's input layer has. The loader of diffusers puts a wider float layer in
its place, with the weight that the codes stand for, and `unload_lora_weights(reset_to_overwritten_params=True)` a float
layer of the first width. The quantizer of the model holds the packed layer meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import is_marked

NORMS = "_transformer_norm_layers"  # where the loader keeps the norms that those of a Control LoRA replace
RESET = "unload_lora_weights(reset_to_overwritten_params=True)"


def keep_packed(load: Callable[..., Any], pipe: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """A wrapper of `load_lora_weights`: holds packed layers that are replaced, and puts them back if it fails."""
    model = getattr(pipe, pipe.transformer_name, None)
    if not is_marked(model):
        return load(*args, **options)
    layers, loadable = _layers(model), (getattr(pipe, name, None) for name in pipe._lora_loadable_modules)
    put_back = [_remembered(one) for one in loadable if one is not None]
    try:
        return load(*args, **options)
    except BaseException:
        for back in put_back:
            back()
        raise
    finally:
        model.hf_quantizer.replaced.update(_gone(model, layers))


def _remembered(model: Any) -> Callable[[], None]:
    """A function that puts back the modules, the attributes, the config and the norms of the model, as they are now."""
    held = [vars(model), vars(model.config), getattr(model, "peft_config", {})]
    held += [module._modules for module in model.modules()]
    then, norms = [(mapping, dict(mapping)) for mapping in held], getattr(model, NORMS, None)

    def back() -> None:
        if (replaced := getattr(model, NORMS, None)) is not norms:
            model.load_state_dict(replaced, strict=False)
        for mapping, items in then:
            mapping.clear()
            mapping.update(items)

    return back


def put_packed_back(unload: Callable[..., Any], pipe: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """A wrapper of `unload_lora_weights`: puts packed layers back where layers of their shape are again."""
    model = getattr(pipe, pipe.transformer_name, None)
    wide = _layers(model) if is_marked(model) else {}
    result = unload(*args, **options)
    for path, layer in [*model.hf_quantizer.replaced.items()] if wide else []:
        if model.get_submodule(path).weight.shape == layer.shape:
            weight = wide[path].weight  # where the model was moved to, which diffusers does not look at
            _put(model, path, layer.to(layer.device if weight.is_meta else weight.device, weight.dtype))
            del model.hf_quantizer.replaced[path]
    return result


def check_not_widened(components: Mapping[str, Any]) -> None:
    """Raises UserError for the first packed layer in whose place a Control LoRA has put a wider one."""
    for name, model in components.items():
        for path in getattr(getattr(model, "hf_quantizer", None), "replaced", ()):
            raise UserError(f"a Control LoRA has put a wider layer in the place of {name}.{path}; call {RESET} first")


def _layers(model: Any) -> dict[str, Any]:
    """Path -> what is there now, of the layers that are packed by the plan; inside a LoRA if there is one."""
    found = {path: model.get_submodule(path) for path in model.hf_quantizer.quantization_config.layers}
    return {path: getattr(layer, "base_layer", layer) for path, layer in found.items()}


def _gone(model: Any, layers: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> the layer that was there and is not any more."""
    now = _layers(model)
    return {path: layer for path, layer in layers.items() if now[path] is not layer}


def _put(model: Any, path: str, layer: Any) -> None:
    parent, _, name = path.rpartition(".")
    if hasattr(model.get_submodule(path), "base_layer"):
        parent, name = path, "base_layer"
    setattr(model.get_submodule(parent), name, layer)
