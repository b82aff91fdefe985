"""Losses that are sums of squared residuals, and their probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from bitplan.sensitivity.metrics.base import Loss, Probe
from bitplan.sensitivity.metrics.signs import random_signs

Residuals = Callable[[torch.Tensor, torch.Tensor], Sequence[torch.Tensor]]  # (full, variant) -> parts, samples first


def loss_of(residuals: Residuals) -> Loss:
    """The loss that is the sum of the squared residuals of each sample, (N,) float64."""

    def losses(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.double().flatten(1).square().sum(1) for part in residuals(full, variant)]).sum(0)

    return losses


def probe_of(residuals: Residuals) -> Probe:
    """The probe v = J^T s, by one backward pass, with J the derivative of the residuals at d = 0 and s random signs.

    E[(v.d)^2] = |J d|^2 is the loss to second order in d.
    """
    return partial(_probe, residuals)


def _probe(residuals: Residuals, full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    with torch.enable_grad():
        variant = full.detach().to(torch.promote_types(full.dtype, torch.float32)).clone().requires_grad_()
        parts = residuals(full.detach(), variant)
        signed = torch.stack([(part.flatten(1) * random_signs(part.flatten(1), generator)).sum() for part in parts])
        (weights,) = torch.autograd.grad(signed.sum(), variant)
    return weights.float()
