"""What a transform does: it changes a weight and the input of its layer so that both round better.

In full precision, transformed weight times transformed input equals the original product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Fitted = Mapping[str, Tensor]  # name -> tensor: the fitted parameters of one transform, or of one layer
Numbers = tuple[Any, ...]  # those of the term


def nothing(weights: Sequence[Tensor], observed: Mapping[str, Any], numbers: Numbers) -> dict[str, Tensor]:
    """No parameters."""
    return {}


def no_layout(outputs: int, channels: int, numbers: Numbers) -> dict[str, Tensor]:
    """No parameters."""
    return {}


def unchanged(x: Tensor, fitted: Fitted, numbers: Numbers) -> Tensor:
    """The weight, or the input, as it is."""
    return x


@dataclass(frozen=True)
class Transform:
    """The functions of a line in `TRANSFORMS`. C is the number of a layer's input channels, O that of its outputs.

    Attributes:
        fit: ((O, ..., C) weight of each layer that shares the parameters, what calibration observed of their input,
            numbers of the term) -> name -> tensor.
        layout: (O, C, numbers) -> name -> tensor on the meta device, as `fit` gives them.
        weight: ((O, ..., C) weight, fitted, numbers) -> the transformed weight, of the same shape.
        inputs: ((..., C) input, fitted, numbers) -> the transformed input, of the same shape.
    """

    fit: Callable[[Sequence[Tensor], Mapping[str, Any], Numbers], Mapping[str, Tensor]] = nothing
    layout: Callable[[int, int, Numbers], Mapping[str, Tensor]] = no_layout
    weight: Callable[[Tensor, Fitted, Numbers], Tensor] = unchanged
    inputs: Callable[[Tensor, Fitted, Numbers], Tensor] = unchanged
