"""What schemes change in the output of one float layer, its input being given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from plans.activations import ActivationScales, as_rows, fake_quantize
from plans.formats import Grid, grid_of, on_grid
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

    module: a float nn.Linear or nn.Conv2d; schemes: with the ranges that static ones need; grids: the caller's, holds
    the layer's grids from one visit to the next. Raises ActivationError, FormatError.
    """
    kind, weight = str(kind_of(module)), module.weight
    full = _product(module, x, weight)
    rounded: dict[ActivationFormat, Tensor] = {}
    for scheme, scales in schemes:
        if scheme.activation not in rounded:
            rounded[scheme.activation] = fake_quantize(as_rows(x, kind), scheme.activation, scales).view(x.shape)
        if scheme.weight not in grids:
            grids[scheme.weight] = grid_of(weight, scheme.weight)
        changed = on_grid(weight, grids[scheme.weight]).to(weight.dtype)
        yield scheme, _product(module, rounded[scheme.activation], changed) - full


def _product(module: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Without the bias, which no scheme touches."""
    if isinstance(module, nn.Linear):
        return linear(x, weight)
    return module._conv_forward(x, weight, None)  # padding modes and all
