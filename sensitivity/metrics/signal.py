"""Metrics of any output as a signal: noise power, correlation, and differences between frames."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from bitplan.sensitivity.metrics.signs import random_signs
from bitplan.sensitivity.metrics.squares import loss_of, probe_of
from bitplan.sensitivity.table import MeasurementError

FLAT = 1e-6  # deviation from the mean, relative to a sample's length, that is rounding of a constant


def nsr(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """Noise power over signal power, mean((variant - full)^2) / mean(full^2), of each sample; a ratio, not dB.

    (S, ...) twice to (S,) float64. Raises MeasurementError if a full-precision sample is all zero.
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


def pixcorr(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """1 - Pearson's correlation of all numbers of a sample, 0..2: (N, ...) twice to (N,) float64.

    It is 1 for a constant variant. Raises MeasurementError if a full-precision sample is constant.
    """
    a, b = _pattern(full), _pattern(variant)
    flat = int((a == 0).all(1).sum())
    if flat:
        raise MeasurementError(f"{flat} of {len(a)} full-precision outputs are flat; a pattern needs differences")
    # half the squared distance of unit vectors is the same number without cancellation near 0
    return (b - a).square().sum(1) / 2 + (b == 0).all(1) / 2


def pattern_residuals(full: torch.Tensor, variant: torch.Tensor) -> list[torch.Tensor]:
    """Residuals, (N, numbers) float64, whose sum of squares is `pixcorr`."""
    return [(_pattern(variant) - _pattern(full)) / 2**0.5]


def _pattern(x: torch.Tensor) -> torch.Tensor:
    """Each sample without its mean, at length 1, (N, numbers) float64; a constant sample becomes 0."""
    wide = x.double().flatten(1)
    centred = wide - wide.mean(1, keepdim=True)
    varies = centred.norm(dim=1, keepdim=True) > FLAT * wide.norm(dim=1, keepdim=True)
    return F.normalize(centred, dim=1) * varies


def change_residuals(full: torch.Tensor, variant: torch.Tensor) -> list[torch.Tensor]:
    """Residuals whose sum of squares is `flicker`: errors of the differences between frames, (P, F, ...) twice to
    (P, F - 1, ...). Raises MeasurementError for a single frame."""
    if full.shape[1] < 2:
        raise MeasurementError(f"flicker needs 2 frames a sample or more, got {full.shape[1]}")
    steps = (variant.double() - full.double()).diff(dim=1)
    return [steps / steps[0].numel() ** 0.5]


pixcorr_probe = probe_of(pattern_residuals)
flicker, flicker_probe = loss_of(change_residuals), probe_of(change_residuals)
