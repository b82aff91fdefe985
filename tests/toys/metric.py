"""A metric: the mean squared difference of the denoiser's output."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.sensitivity.metrics import Metric


def power(full: Tensor, variant: Tensor) -> Tensor:
    return (full.double() - variant.double()).square().flatten(1).mean(1)


def probe(full: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(full.shape, generator=generator) / full[0].numel() ** 0.5


POWER = Metric("toy_power", "quality", "denoised", "mean squared difference", power, symmetric=True, probe=probe,
               default=("images",))  # fmt: skip
