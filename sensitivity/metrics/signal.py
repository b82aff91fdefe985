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
