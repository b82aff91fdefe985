"""What schemes change in the output of one float layer, its input being given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from plans.activations import ActivationScales, as_rows, fake_quantize
from plans.formats import Grid, grid_of, on_grid
from plans.kinds import KINDS
from plans.modules import kind_of
from plans.scheme import ActivationFormat, Scheme, WeightFormat


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
