"""Noise of the denoiser's output."""

from __future__ import annotations

import torch

from sensitivity.table import MeasurementError


def nsr(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """Noise power over signal power, mean((variant - full)^2) / mean(full^2) of each sample; never dB, so it adds up.

    (S, ...) twice to (S,) float64. Raises MeasurementError where a full-precision sample is all zero.
    """
    full, variant = full.double().flatten(1), variant.double().flatten(1)
    signal = full.square().mean(1)
    dead = int((signal == 0).sum())
    if dead:
        raise MeasurementError(f"{dead} of {len(signal)} full-precision outputs are all zero; check the cached inputs")
    return (variant - full).square().mean(1) / signal


def nsr_probe(full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random signs over the root of the signal power: E[(v.d)^2] = |d|^2 / |full|^2 for a change d of a sample."""
    signs = random_signs(full, generator)
    norms = full.flatten(1).float().norm(dim=1).view(-1, *(1,) * (full.dim() - 1))
    return signs / norms


def random_signs(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 -1 or 1 with even odds, drawn on the CPU so that every device sees the same: unit covariance, and of all
    such distributions the one whose quadratic forms vary least (Hutchinson 1990)."""
    drawn = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (2.0 * drawn - 1.0).to(like.device)
