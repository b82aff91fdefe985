"""A small network with random weights and the parts of an `lpips.LPIPS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.sensitivity.metrics.perceptual import network_of


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.nn.functional.gelu(self.first(x))
        return one, torch.nn.functional.gelu(self.second(one))


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.scaling_layer = Layers(), nn.Identity()
        self.lins = nn.ModuleList(_Linear(channels) for channels in (6, 4))


class _Linear(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))
        with torch.no_grad():
            self.model[-1].weight.uniform_(0, 1)


def stand_in() -> Callable[[Tensor], Any]:
    return network_of(Judge())


def slow_lpips(model: Any, a: Tensor, b: Tensor) -> Tensor:
    """Eq. 1 of Zhang et al. 2018 as it is written."""
    total = torch.zeros(len(a), dtype=torch.float64)
    for x, y, lin in zip(*(model.net(model.scaling_layer(2 * z - 1)) for z in (a, b)), model.lins, strict=True):
        x, y = (z.double() / z.double().norm(dim=1, keepdim=True) for z in (x, y))
        weights = lin.model[-1].weight.double().view(1, -1, 1, 1)
        total += (weights * (x - y).square()).sum(1).mean((1, 2))
    return total
