"""Noise of any output as a signal: its power, what is left of its pattern, what it does from frame to frame."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from bitplan.sensitivity.metrics.signs import random_signs
from bitplan.sensitivity.metrics.squares import loss_of, probe_of
from bitplan.sensitivity.table import MeasurementError

FLAT = 1e-6  # of a sample's length: less is rounding of a single value


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


def pixcorr(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """1 - Pearson's correlation of all numbers of a sample, 0..2: (N, ...) twice to (N,) float64.

    A flat variant is correlated with nothing. Raises MeasurementError where a full-precision sample is flat.
    """
    a, b = _pattern(full), _pattern(variant)
    flat = int((a == 0).all(1).sum())
    if flat:
        raise MeasurementError(f"{flat} of {len(a)} full-precision outputs are flat; a pattern needs differences")
    # half the squared distance of unit vectors is the same number without cancellation near 0
    return (b - a).square().sum(1) / 2 + (b == 0).all(1) / 2


def pattern_residuals(full: torch.Tensor, variant: torch.Tensor) -> list[torch.Tensor]:
    """The sum of whose squares is `pixcorr`, (N, numbers) float64."""
    return [(_pattern(variant) - _pattern(full)) / 2**0.5]


def _pattern(x: torch.Tensor) -> torch.Tensor:
    """A sample without its mean, at length 1: (N, numbers) float64, 0 for what is flat but for rounding."""
    wide = x.double().flatten(1)
    centred = wide - wide.mean(1, keepdim=True)
    seen = centred.norm(dim=1, keepdim=True) > FLAT * wide.norm(dim=1, keepdim=True)
    return F.normalize(centred, dim=1) * seen


def change_residuals(full: torch.Tensor, variant: torch.Tensor) -> list[torch.Tensor]:
    """(P, F, ...) twice to what the steps from frame to frame differ by, over the root of how many numbers those are.

    Raises MeasurementError for a single frame.
    """
    if full.shape[1] < 2:
        raise MeasurementError(f"flicker needs 2 frames a sample or more, got {full.shape[1]}")
    steps = (variant.double() - full.double()).diff(dim=1)
    return [steps / steps[0].numel() ** 0.5]


pixcorr_probe = probe_of(pattern_residuals)
flicker, flicker_probe = loss_of(change_residuals), probe_of(change_residuals)
