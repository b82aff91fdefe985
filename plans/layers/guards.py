"""Packed layers refuse writes to their weight and gradients through them, which would be lost silently otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bitplan.plans.kernels import KernelError

_NO_WRITING = ("the weight of a packed layer is read from its codes and cannot be written to: a LoRA cannot be fused, "
               "nor trained into it; keep the adapter loaded, or fuse it before the plan is applied")  # fmt: skip


_NO_GRADIENT = ("a packed layer has no gradient; train the float pipeline (bitplan.restore, or load it without the "
                "plan), then profile and solve again")  # fmt: skip


class ReadOnly(Tensor):
    """A tensor that refuses operations in place; results of all others are plain tensors."""

    _is_hf_initialized = True  # what transformers asks, of models just loaded, before it fills a weight with noise

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        # `w.data = x`, `w.add_(x)`, `w += x`, `w[0] = x`
        if args and isinstance(args[0], cls) and (name in ("__set__", "__setitem__") or _in_place(name)):
            raise KernelError(_NO_WRITING)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def guarded(weight: Tensor) -> Tensor:
    """Returns `weight` such that it refuses writes; unchanged under `torch.compile`, where nothing writes to it."""
    return weight if torch.compiler.is_compiling() else weight.as_subclass(ReadOnly)


class _Wall(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, source: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise KernelError(_NO_GRADIENT)


def refuse_backward(layer: Any, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
    """A forward hook, by which `backward` through a layer that has no gradient raises KernelError."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return None
    if layer.scheme.inputs.bits == 16 and not layer.real:  # simulated, its input not rounded: plain torch
        return None
    source = next((x for x in args if isinstance(x, Tensor) and x.requires_grad), None)
    return None if source is None else _Wall.apply(out, source)


def _in_place(name: str) -> bool:
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__", "__iter__")
    return name.endswith("_")
