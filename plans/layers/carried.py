"""What users and libraries attach to a layer: hooks and attributes go along to the module in its place, and the rest is
refused."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

# The tables of hooks that a module shares with the one in its place, so that a handle removes a hook from both.
HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
_OWN = {"training", "forward"}  # of any module; hooks that were removed leave a forward
_OF_STATE = ("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


def share_hooks(module: nn.Module, other: nn.Module) -> None:
    """Lets `other` call the hooks of `module`, also those that either of them gets or loses later."""
    for name in HOOKS:
        setattr(other, name, getattr(module, name))
    other._is_full_backward_hook = module._is_full_backward_hook


def carry_attributes(module: nn.Module, other: nn.Module, own: Collection[str]) -> None:
    """Gives `other` the public attributes of `module`, as users set them, and no others.

    own: names of attributes that each class sets itself.
    """
    kept, old = ({name for name in vars(one) if not name.startswith("_")} - _OWN - {*own} for one in (module, other))
    for name in old - kept:
        delattr(other, name)
    vars(other).update({name: vars(module)[name] for name in kept})


def has_own_forward(module: nn.Module) -> bool:
    """Whether calls run something else than the class's forward. A hook that was removed leaves that on the module."""
    own = vars(module).get("forward")
    return own is not None and own != type(module).forward.__get__(module)


def attached(module: nn.Module) -> str | None:
    """What hangs on a layer and cannot go along to another module in its place, in words; None where nothing does."""
    if has_own_forward(module):
        return "has a forward of its own, such as LoRA scripts and the hooks of accelerate give it"
    if getattr(getattr(module, "_diffusers_hook", None), "hooks", None):
        return "has hooks of diffusers"
    if any(getattr(module, name) for name in _OF_STATE):
        return "has hooks on its state dict"
    if module._modules:
        return f"contains the module {next(iter(module._modules))}"
    if more := [name for name in (*module._parameters, *module._buffers) if name not in ("weight", "bias")]:
        return f"contains the tensor {more[0]} beside its weight and bias"
    return None
