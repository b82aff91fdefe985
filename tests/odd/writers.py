"""Subjects that write: the denoiser into what it gets, the sampler into what it gets back, seen by torch or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject
from tests.odd.parts import Net, made, sampled

HALF = 0.5


def _by_numpy(x: Tensor) -> None:
    values = x.detach().numpy()
    np.multiply(values, HALF, out=values)


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "mul_": lambda x: x.mul_(HALF),
    "[...]": lambda x: x.__setitem__(..., x * HALF),
    "out=": lambda x: torch.mul(x, HALF, out=x),
    ".data": lambda x: x.data.mul_(HALF),
    "numpy": _by_numpy,
}


class Writer(Net):
    """Halves one of its arguments in place, or a layer's output from the second step on."""

    def __init__(self, write: str, where: str) -> None:
        super().__init__()
        self.write, self.where = WRITES[write], where

    def forward(self, x: Tensor, time: float, known: Any) -> Tensor:
        known = known["known"] if isinstance(known, dict) else known
        if self.where != "layer":
            self.write(x if self.where == "x" else known)
            return super().forward(x, time, known)
        h = self.first(x)
        if time:
            self.write(h)
        h = torch.tanh(h + known + time)
        return self.last(h + torch.tanh(self.middle(h)))


def by_denoiser(write: str, where: str) -> Subject:
    """where: `x`, `known`, `dict` for the latter in a dictionary, or `layer` for the output of a layer."""
    net = made(Writer, write, where)
    if where == "dict":
        return sampled(net, lambda x, time, known: net(x, time, known={"known": known}))
    return sampled(net)


def by_sampler(write: str, net: nn.Module | None = None) -> Subject:
    """The sampler halves what the denoiser returned, in place."""
    own = net or made(Net)

    def denoise(x: Tensor, time: float, known: Tensor) -> Tensor:
        out = own(x, time, known)
        WRITES[write](out)
        return out

    return sampled(own, denoise)
