"""Samples told apart by loudness: the weights of each are scaled by a power of two of its own.

Backward passes are linear: the gradient at a row that acts on one sample alone grows by the power of that sample.
Powers of two scale without rounding. The gradient at a row that acts on several samples grows unevenly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PROJECTIONS = 4  # numbers that stand for the gradient at a row
NEAR = 1e-2  # difference of two gradients, relative to their size, that is rounding


def signs(shape: Sequence[int], seed: int) -> Tensor:
    """Random numbers of which each is -1 or 1."""
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, tuple(shape), generator=generator, dtype=torch.float32, device="cpu") - 1


def weights(like: Tensor, factors: Tensor, seed: int) -> Tensor:
    """Random signs times the factor of each row, (B, ...) as a tensor is."""
    return (signs(like.shape, seed) * factors.float().view(-1, *(1,) * (like.ndim - 1))).to(like)


def projected(gradient: Tensor) -> Tensor:
    """A few numbers that stand for each row of a gradient, (B, `PROJECTIONS`)."""
    flat = gradient.detach().flatten(1).float()
    return (flat @ signs((flat.shape[1], PROJECTIONS), 1).to(flat)).cpu()


def powers(one: Tensor, other: Tensor) -> Tensor:
    """By which power of two each row of a gradient grew: nan for a row of zeros, inf for one that grew unevenly."""
    one, other = one.double(), other.double()
    size = one.square().sum(1)
    factor = (one * other).sum(1) / size
    power = factor.log2().round()
    even = (other - one * power.exp2()[:, None]).norm(dim=1) <= NEAR * other.norm(dim=1)
    return torch.where(size == 0, torch.nan, torch.where(even, power, torch.inf))
