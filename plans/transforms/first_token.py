"""`+first`: the first token of every sequence has a calibrated range of its own.

CLIP's first token is the same for every prompt and far larger than the others, so that one range for all wastes most
codes on it; MixDQ (Zhao et al. 2024, arXiv:2405.17873) keeps it apart. Here only its scale is kept apart.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from bitplan.plans.transforms.base import Transform


def row_ranges(leading: tuple[int, ...], tensor: float, first: float) -> Tensor:
    """`leading` is (batch..., tokens); token 0 gets the range `first`, all others `tensor`."""
    if len(leading) < 2:
        raise ValueError(f"`+first` needs an input (batch, tokens, features), got {len(leading) + 1} dimensions")
    ranges = torch.full((prod(leading[:-1]), leading[-1]), tensor, dtype=torch.float32, device="cpu")
    ranges[:, :1] = first
    return ranges.view(-1)


FIRST_TOKEN = Transform()  # weight and input stay; input formats round by the row's own range
