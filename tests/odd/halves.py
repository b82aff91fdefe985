"""Subjects whose modules have 16 bits: all of them, one that runs before the net, or one that never runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject
from tests.odd.parts import INSIDE, Net, made, sampled


def whole(dtype: torch.dtype = torch.bfloat16) -> Subject:
    return sampled(made(Net).to(dtype), dtype=dtype)


def mixed(dtype: torch.dtype = torch.bfloat16) -> Subject:
    """An encoder of 16 bits in front of a net of 32."""
    net, encoder = made(Net), made(nn.Linear, INSIDE, INSIDE).to(dtype)
    subject = sampled(net, name="mixed")

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        return subject.run(list(encoder(torch.stack(list(conditions)).to(dtype)).float()), seed)

    return replace(subject, modules={"net": net, "encoder": encoder}, run=run)


def idle() -> Subject:
    """A module of 16 bits that never runs."""
    net = made(Net)
    return replace(sampled(net), modules={"net": net, "spare": made(Net).half()})
