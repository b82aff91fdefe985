"""What schemes change in the output of one float layer, its input being given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from bitplan.plans.formats import Grid, Packed, dequantize, grid_of, on_grid, quantize
from bitplan.plans.inputs.integer import ActivationScales, as_rows, fake_quantize
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import kind_of
from bitplan.plans.layers.swap import _kernel_for, find_layer
from bitplan.plans.scheme import KEEP, ActivationFormat, Scheme, WeightFormat


@contextmanager
def variant(
    components: Mapping[str, nn.Module],
    layer: str,
    scheme: Scheme,
    scales: ActivationScales | None = None,
    cache: MutableMapping[tuple[str, WeightFormat], Packed] | None = None,
) -> Iterator[nn.Module]:
    """For the length of the `with`, simulates `scheme` on one layer; gives the module, which stays the same object.

    Its weight is replaced by the dequantized one, in the layer's float type, and a hook rounds its input: in a float32
    model the numerics of the reference kernel. cache: the caller's, holds packed weights so that a second visit need
    not search for scales again. Raises SwapError for an unknown layer, KernelError for a scheme that has no meaning for
    it, FormatError for its weights; ActivationError when the layer runs without the range that the scheme needs.
    """
    module = find_layer(components, layer)
    if scheme == KEEP:
        yield module
        return
    _kernel_for(module, layer, scheme, False)
    original = module.weight
    packed = _packed(original, layer, scheme.weight, cache)
    weight = dequantize(packed).to(original.dtype)
    hook = _rounding_hook(scheme.activation, str(kind_of(module)), scales)
    handle = module.register_forward_pre_hook(hook, with_kwargs=True) if scheme.activation.bits < 16 else None
    try:
        module.weight = nn.Parameter(weight, requires_grad=False)
        yield module
    finally:
        module.weight = original
        if handle is not None:
            handle.remove()


def _packed(
    weight: Tensor, layer: str, fmt: WeightFormat, cache: MutableMapping[tuple[str, WeightFormat], Packed] | None
) -> Packed:
    if cache is None:
        return quantize(weight, fmt)
    if (layer, fmt) not in cache:
        cache[layer, fmt] = quantize(weight, fmt)
    return cache[layer, fmt]


def _rounding_hook(activation: ActivationFormat, kind: str, scales: ActivationScales | None) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        x = args[0] if args else kwargs["input"]
        rounded = fake_quantize(as_rows(x, kind), activation, scales).view(x.shape)
        return ((rounded, *args[1:]), kwargs) if args else (args, {**kwargs, "input": rounded})

    return hook


@torch.no_grad()
def output_changes(
    module: nn.Module,
    x: Tensor,
    schemes: Iterable[tuple[Scheme, ActivationScales | None]],
    grids: MutableMapping[WeightFormat, Grid],
) -> Iterator[tuple[Scheme, Tensor]]:
    """Each scheme and what the layer then puts out less what it puts out now, shaped like its output.

    module: a float layer; schemes: with the ranges that static ones need; grids: the caller's, holds
    the layer's grids from one visit to the next. Raises ActivationError, FormatError.
    """
    kind, weight = str(kind_of(module)), module.weight
    rounded: dict[ActivationFormat, tuple[Tensor, Tensor | None]] = {}
    for scheme, scales in schemes:
        if scheme.activation not in rounded:
            rounded[scheme.activation] = _rounded(module, kind, x, scheme.activation, scales)
        if scheme.weight not in grids:
            grids[scheme.weight] = grid_of(weight, scheme.weight)
        inputs, through = rounded[scheme.activation]
        change = _product(module, kind, inputs, on_grid(weight, grids[scheme.weight]).sub_(weight).to(weight.dtype))
        yield scheme, change if through is None else change.add_(through)


def _rounded(
    module: nn.Module, kind: str, x: Tensor, fmt: ActivationFormat, scales: ActivationScales | None
) -> tuple[Tensor, Tensor | None]:
    """The input as the format rounds it, and what that alone changes in the output, None if it rounds nothing.

    The differences are taken before the products and in float32: in 16 bits the difference of two outputs would be
    mostly their own rounding.
    """
    if fmt.bits == 16:
        return x, None
    exact = x.float()
    rounded = fake_quantize(as_rows(exact, kind), fmt, scales).view(x.shape)
    return rounded.to(x.dtype), _product(module, kind, (rounded - exact).to(x.dtype), module.weight)


def _product(module: Any, kind: str, x: Tensor, weight: Tensor) -> Tensor:
    """Without the bias, which no scheme touches."""
    if KINDS[kind].dims:
        return module._conv_forward(x, weight, None)  # padding modes and all
    return embedding(x, weight) if KINDS[kind].looks_up else linear(x, weight)
