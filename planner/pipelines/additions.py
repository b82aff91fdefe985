"""What libraries add to the modules of a model that changes how they run or where their weights are.

What is not known to be measured right is refused by name, before anything runs: a hook of diffusers or accelerate that
is not listed here also.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bitplan.planner.errors import UserError
from bitplan.plans.layers.addresses import addresses

COMPILED = torch._dynamo.OptimizedModule


@dataclass(frozen=True)
class Addition:
    """What was added to a module.

    Attributes:
        says: what the module is, does or has; a part of a sentence.
        measuring: what to do before it is measured; {} stands for its component.
        applying: the same before a plan is applied to it; empty if a plan can be.
    """

    says: str
    measuring: str
    applying: str = ""

    @property
    def restoring(self) -> str:
        """What to do before a plan is undone; empty where a plan can be applied."""
        return self.applying and REMOVE


REMOVE = "remove it first"
WITHOUT, AFTER = "load the model without it", "apply the plan first, and add it again afterwards"
AWAY = "moves its weights away between its calls"
LESS_MEMORY = "`bitplan profile --offload-folder FOLDER` keeps weights in files instead"
CACHES = ("faster_cache", "first_block_cache", "mag_cache", "pyramid_attention_broadcast", "sea_cache",
          "taylorseer_cache", "text_kv_cache")  # fmt: skip
CACHE = Addition("is a step cache and makes calls depend on earlier ones",
                 "turn it off first with {}.disable_cache(), or load the model without it")  # fmt: skip
HOOKS = {  # file of diffusers.hooks -> what its hooks do
    **dict.fromkeys(CACHES, CACHE),
    "group_offloading": Addition(AWAY, f"{WITHOUT}; {LESS_MEMORY}", AFTER),
    "layerwise_casting": Addition("casts its weights at each call", WITHOUT, WITHOUT),
}
UNKNOWN = Addition("changes how it runs", WITHOUT)
SCRIPTED = Addition("is a module of torch.jit, whose layers cannot be replaced",
                    *["give the nn.Module that it was made of"] * 2)  # fmt: skip
INSIDE = Addition("is compiled by torch.compile, which puts another module around it, inside a component",
                  *["compile the whole component, or compile in place with its compile()"] * 2)  # fmt: skip


def original(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` put another one around; any other module unchanged."""
    while isinstance(module, COMPILED):
        module = module._orig_mod
    return module


def check_additions(components: Mapping[str, nn.Module], before: str = "measuring") -> None:
    """Raises UserError for the first module with an addition that is not known to be measured right, or with which no
    plan can be applied or undone.

    components: name -> module; none of them is compiled, see `original`. before: `measuring`, `applying` or
    `restoring`.
    """
    for module, (address, *_) in addresses(components).items():
        for added in (found for find in (_type, _hook, _mover) if (found := find(module))):
            if advice := getattr(added, before):
                raise UserError(f"{address} {added.says}; {advice.format(address.partition('.')[0])}")
    for name, component in components.items():
        _check_there(name, component)


def _type(module: nn.Module) -> Addition | None:
    if isinstance(module, torch.jit.ScriptModule):
        return SCRIPTED
    return INSIDE if isinstance(module, COMPILED) else None


def _hook(module: nn.Module) -> Addition | None:
    """The first hook of diffusers."""
    for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).values():
        known = HOOKS.get(type(hook).__module__.rpartition(".")[2], UNKNOWN)
        return replace(known, says=f"has the hook {type(hook).__name__} of diffusers, which {known.says}")
    return None


def _mover(module: nn.Module) -> Addition | None:
    """The hook of accelerate. One that only brings inputs to the device of the weights is taken."""
    hook: Any = getattr(module, "_hf_hook", None)
    name, moves = type(hook).__name__, f"which {AWAY}, as enable_model_cpu_offload and enable_sequential_cpu_offload do"
    if hook is None or (name == "AlignDevicesHook" and not hook.offload):
        return None
    return Addition(
        f"has the hook {name} of accelerate, {moves}",
        f"call remove_all_hooks() of the pipeline first; {LESS_MEMORY}",
        "" if name == "CpuOffload" else f"call remove_all_hooks() of the pipeline first; {AFTER}",
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
