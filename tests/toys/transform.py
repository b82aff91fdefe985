"""A transform with a fitted tensor: input channels are divided by a scale, by which the weight's are multiplied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bitplan.plans.transforms.base import Fitted, Numbers, Transform


def fit(weights: Sequence[Tensor], observed: Mapping[str, Any], numbers: Numbers) -> dict[str, Tensor]:
    largest = torch.stack([weight.flatten(0, -2).abs().amax(0) for weight in weights]).amax(0)
    return {"scale": largest.clamp_min(1e-3).rsqrt()}


def layout(outputs: int, channels: int, numbers: Numbers) -> dict[str, Tensor]:
    return {"scale": torch.empty(channels, device="meta")}


def weight(w: Tensor, fitted: Fitted, numbers: Numbers) -> Tensor:
    return w * fitted["scale"].to(w.dtype)


def inputs(x: Tensor, fitted: Fitted, numbers: Numbers) -> Tensor:
    return x / fitted["scale"].to(x.dtype)


EVEN = Transform(fit, layout, weight, inputs)
