"""What libraries add to the modules of a model that changes how they run or where their weights are.

What is not known to be measured right is refused by name, before anything runs: a hook of diffusers or accelerate that
is not listed here also.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from bitplan.planner.errors import UserError
from bitplan.plans.layers.addresses import addresses

COMPILED = torch._dynamo.OptimizedModule
CACHES = ("faster_cache", "first_block_cache", "mag_cache", "pyramid_attention_broadcast", "sea_cache",
          "taylorseer_cache", "text_kv_cache")  # fmt: skip
AWAY = "moves its weights away between its calls"
LESS_MEMORY = "`bitplan profile --offload-folder FOLDER` keeps weights in files instead"
# file of diffusers.hooks -> what its hooks do, and what to do about them, where {} stands for the component
HOOKS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(CACHES, ("is a step cache and makes calls depend on earlier ones",
                             "turn it off first with {}.disable_cache(), or load the model without it")),
    "group_offloading": (AWAY, f"load the model without it; {LESS_MEMORY}"),
    "layerwise_casting": ("casts its weights at each call", "load the model without it"),
}  # fmt: skip
_UNKNOWN = "changes how it runs", "load the model without it"


def original(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` put another one around; any other module unchanged."""
    while isinstance(module, COMPILED):
        module = module._orig_mod
    return module


def check_additions(components: Mapping[str, nn.Module]) -> None:
    """Raises UserError for the first module with an addition that is not known to be measured right.

    components: name -> module; none of them is compiled, see `original`.
    """
    for module, (address, *_) in addresses(components).items():
        for find in (_scripted, _compiled, _hooked, _moved):
            if found := find(module):
                what, advice = found
                raise UserError(f"{address} {what}; {advice.format(address.partition('.')[0])}")
    for name, component in components.items():
        _check_there(name, component)


Found = tuple[str, str] | None  # what a module does or is, and what to do about it


def _scripted(module: nn.Module) -> Found:
    if not isinstance(module, torch.jit.ScriptModule):
        return None
    return "is a module of torch.jit, whose layers cannot be replaced", "give the nn.Module that it was made of"


def _compiled(module: nn.Module) -> Found:
    if not isinstance(module, COMPILED):
        return None
    return (
        "is compiled by torch.compile, which puts another module around it, inside a component",
        "compile the whole component, or compile in place with its compile()",
    )


def _hooked(module: nn.Module) -> Found:
    """The first hook of diffusers."""
    for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).values():
        what, advice = HOOKS.get(type(hook).__module__.rpartition(".")[2], _UNKNOWN)
        return f"has the hook {type(hook).__name__} of diffusers, which {what}", advice
    return None


def _moved(module: nn.Module) -> Found:
    """The hook of accelerate. One that only brings inputs to the device of the weights is taken."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is None or (type(hook).__name__ == "AlignDevicesHook" and not hook.offload):
        return None
    return (
        f"has the hook {type(hook).__name__} of accelerate, which {AWAY}, as enable_model_cpu_offload and "
        "enable_sequential_cpu_offload make it do",
        f"call remove_all_hooks() of the pipeline first; {LESS_MEMORY}",
    )


def _check_there(name: str, component: nn.Module) -> None:
    """Raises UserError where weights are on the device meta, which holds none."""
    tensors = [*component.named_parameters(), *component.named_buffers()]
    if missing := [path for path, tensor in tensors if tensor.is_meta]:
        raise UserError(f"{len(missing)} of {len(tensors)} tensors of {name} are on the device meta, which holds no "
                        f"numbers, such as {name}.{missing[0]}; load its weights first")  # fmt: skip


def eagerly() -> AbstractContextManager[Any]:
    """Within the `with`, compiled modules and functions run as they were written, so that each layer is called."""
    return torch.compiler.set_stance("force_eager")
