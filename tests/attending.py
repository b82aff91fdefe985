"""A small denoiser with every use of nn.MultiheadAttention, as a model of diffusers and as a subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject

WIDTH, STEPS = 16, 3


class Attending(ModelMixin, ConfigMixin):
    """Cross-attention of other widths, plain self-attention with the batch second, and an encoder that torch runs on
    nested tensors. (batch, 4, 6) and (batch, 3, 12) to (batch, 4, 6)."""

    @register_to_config
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.inp = nn.Linear(6, width)
        self.cross = nn.MultiheadAttention(width, 2, kdim=12, vdim=12, batch_first=True)
        self.plain = nn.MultiheadAttention(width, 2)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 1)
        self.out = nn.Linear(width, 6)

    def forward(self, x: Tensor, t: Tensor, known: Tensor) -> Tensor:
        h = self.inp(x) + t
        h = h + self.cross(h, known, known)[0]
        turned = h.transpose(0, 1)
        h = h + self.plain(turned, turned, turned, need_weights=False)[0].transpose(0, 1)
        padding = torch.zeros(h.shape[:2], dtype=torch.bool)
        padding[:, -1] = True
        return self.out(self.enc(h, src_key_padding_mask=padding))


def build(seed: int = 0) -> Attending:
    torch.manual_seed(seed)
    return Attending().eval()


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    known = torch.randn(2, 3, 12, generator=generator)
    return torch.randn(2, 4, 6, generator=generator), torch.tensor(0.5), known


def made(net: Any = None) -> Subject:
    """A sampler of three steps; a condition is three vectors."""
    denoiser = build() if net is None else net

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        known = torch.stack(list(conditions))
        noise = [torch.randn(4, 6, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(known))]
        x = torch.stack(noise)
        for i in range(STEPS):
            x = x - 0.3 * denoiser(x, torch.tensor(i / STEPS), known)
        return x

    conditions = list(torch.randn(4, 3, 12, generator=torch.Generator().manual_seed(1)))
    return Subject({"net": denoiser}, run, conditions, "array", name="attending")
