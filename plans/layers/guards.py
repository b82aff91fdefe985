"""Packed layers refuse writes to their weight and gradients through them, which would be lost silently otherwise, and
the transforms of torch that cannot see into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd.forward_ad import unpack_dual
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_map_only

from bitplan.plans.kernels import KernelError

_NO_WRITING = ("the weight of a packed layer is read from its codes and cannot be written to: a LoRA cannot be fused, "
               "nor trained into it; keep the adapter loaded, or fuse it before the plan is applied")  # fmt: skip
_NO_ROWS = ("a packed embedding is read from its codes and cannot be written to, nor can it take more tokens, as "
            "textual inversion adds them; pin this layer to `keep` and solve again")  # fmt: skip

_NO_GRADIENT = ("a packed layer has no gradient; train the float pipeline (bitplan.restore, or load it without the "
                "plan), then profile and solve again")  # fmt: skip

NO_RECORDING = "packed layers cannot be recorded by {}; use torch.compile or torch.export"


_FACTS = frozenset(  # what a weight is asked without its numbers; LoRA loaders ask each layer some twenty times
    {getattr(Tensor, name).__get__ for name in ("device", "dtype", "is_meta", "ndim", "requires_grad", "shape")}
    | {Tensor.dim, Tensor.element_size, Tensor.is_floating_point, Tensor.numel, Tensor.size}
)


class ReadOnly(Tensor):
    """A tensor that refuses operations in place; its numbers are computed anew at each operation that needs them.

    Results are plain tensors, but for `data`, which is the same tensor.
    """

    says = _NO_WRITING
    _is_hf_initialized = True  # what transformers asks, of models just loaded, before it fills a weight with noise
    compute: Callable[[], Tensor]

    @staticmethod
    def __new__(cls, compute: Callable[[], Tensor], size: Sequence[int], dtype: torch.dtype, device: Any) -> Any:
        made = Tensor._make_wrapper_subclass(cls, size, dtype=dtype, device=device)  # type: ignore[attr-defined]
        made.compute = compute
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        # `w.data = x`, `w.add_(x)`, `w += x`, `w[0] = x`
        if args and isinstance(args[0], cls) and (name in ("__set__", "__setitem__") or _in_place(name)):
            raise KernelError(cls.says)
        if func == Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0]
        with torch._C.DisableTorchFunctionSubclass():
            if func in _FACTS:
                return func(*args, **(kwargs or {}))
            return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(ReadOnly, lambda weight: weight.compute(), (args, kwargs or {}))
        return func(*args, **kwargs)


class ReadOnlyRows(ReadOnly):
    """That of an embedding."""

    says = _NO_ROWS


def guarded(weight: Tensor) -> Tensor:
    """Returns `weight` such that it refuses writes; unchanged under `torch.compile`, where nothing writes to it."""
    return computed(lambda: weight, weight.shape, weight.dtype, weight.device)


def computed(
    compute: Callable[[], Tensor], size: Sequence[int], dtype: torch.dtype, device: Any, looks_up: bool = False
) -> Tensor:
    """Returns the weight that `compute` returns, computed when its numbers are needed, such that it refuses writes;
    under `torch.compile`, where nothing writes to it, what `compute` returns.

    looks_up: whether it is that of an embedding.
    """
    if torch.compiler.is_compiling():
        return compute()
    return (ReadOnlyRows if looks_up else ReadOnly)(compute, size, dtype, device)


class _Wall(torch.autograd.Function):
    @staticmethod
    def forward(out: Tensor, source: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Nothing to hold."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise KernelError(_NO_GRADIENT)


@torch.library.custom_op("bitplan::wall", mutates_args=())
def wall(out: Tensor, source: Tensor) -> Tensor:
    """`out` for compiled code: its gradient with respect to `source` is `no_gradient`."""
    return out.clone()


@torch.library.custom_op("bitplan::no_gradient", mutates_args=())
def no_gradient(gradient: Tensor, source: Tensor) -> Tensor:
    """Raises KernelError when it runs: compilers trace the backward pass of calls that never have one."""
    raise KernelError(_NO_GRADIENT)


wall.register_fake(lambda out, source: torch.empty_like(out))
no_gradient.register_fake(lambda gradient, source: torch.empty_like(source))
wall.register_autograd(
    lambda ctx, gradient: (None, no_gradient(gradient, *ctx.saved_tensors)),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[1]),
)


def refuse_backward(layer: Any, x: Tensor, out: Tensor) -> Tensor:
    """Returns `out` such that `backward` to the input `x` or to the bias of a layer without gradients raises
    KernelError."""
    if not torch.is_grad_enabled() or _is_plain(layer):
        return out
    source = next((one for one in (x, layer.bias) if one is not None and one.requires_grad), None)
    if source is None:
        return out
    return wall(out, source) if torch.compiler.is_compiling() else _Wall.apply(out, source)


def check_call(layer: Any, x: Tensor) -> None:
    """Raises KernelError under the transforms of torch that packed layers do not support."""
    if torch.compiler.is_compiling():
        return
    if torch.jit.is_tracing():
        raise KernelError(NO_RECORDING.format("torch.jit"))
    if get_proxy_mode() is not None:
        raise KernelError(NO_RECORDING.format("make_fx"))
    if not isinstance(x, Tensor):
        raise KernelError(f"a packed layer takes a tensor, not a {type(x).__name__}; to record a model, use "
                          "torch.compile or torch.export")  # fmt: skip
    if _is_plain(layer):
        return
    if any(level.key() == TransformType.Vmap for level in get_interpreter_stack() or ()):
        raise KernelError("packed layers do not run under torch.vmap; give them the mapped dimension as part of the "
                          "batch")  # fmt: skip
    if unpack_dual(x).tangent is not None:
        raise KernelError(f"forward-mode differentiation: {_NO_GRADIENT}")


def _is_plain(layer: Any) -> bool:
    """Whether it is simulated without rounding its input, so that torch differentiates it."""
    return layer.scheme.inputs.bits == 16 and not layer.real


def _in_place(name: str) -> bool:
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__", "__iter__")
    return name.endswith("_")
