"""Tries a metric on a sample before anything slow is run, and refuses a metric that is not a loss."""

from __future__ import annotations

import torch

from bitplan.sensitivity.metrics import Metric
from bitplan.sensitivity.metrics.calls import losses_of
from bitplan.sensitivity.table import MeasurementError

SAME = 1e-6  # largest loss of equal outputs that is rounding
AMOUNT = 0.05  # size of the test change, relative to the sample's standard deviation


def check_metric(metric: Metric, sample: torch.Tensor) -> None:
    """Try a metric on readings in full precision.

    Args:
        metric: the metric.
        sample: (N, ...) readings; with N >= 2 it is also checked that losses do not depend on other samples.

    Raises:
        MeasurementError: the losses have a wrong shape or type, are not finite, not 0 for equal outputs, negative
            though the metric is not signed, not reproducible, or depend on other samples though it is additive.
    """
    changed = _change(sample)
    same = _losses(metric, sample, sample)
    if float(same.abs().max()) > SAME:
        raise MeasurementError(
            f"metric {metric.name} is {float(same.abs().max()):.3g} for equal outputs; it must be 0 there"
        )
    losses = _losses(metric, sample, changed)
    if not metric.signed and float(losses.min()) < -SAME:
        raise MeasurementError(f"metric {metric.name} is {float(losses.min()):.3g} for a changed output; a loss is "
                        "0 or more, or comes as a Metric with signed=True")  # fmt: skip
    if not _close(losses, _losses(metric, sample, changed)):
        raise MeasurementError(
            f"metric {metric.name} gives other losses when called again; it must not draw random numbers"
        )
    if metric.additive and len(sample) > 1 and not _close(losses[:1], _losses(metric, sample[:1], changed[:1])):
        raise MeasurementError(f"metric {metric.name} gives a sample another loss when it comes alone; compare samples "
                        "one by one, or give a Metric with additive=False for evaluations only")  # fmt: skip


def _change(sample: torch.Tensor) -> torch.Tensor:
    """The sample with a little noise, clipped to its own range, so that images stay valid."""
    low, high = sample.aminmax()
    noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu").to(
        sample
    )
    spread = (sample.float().std() if sample.numel() > 1 else sample.float().abs().max()).to(sample)
    changed = sample + AMOUNT * spread * noise
    return changed.clamp(low, high) if low < high else changed


def _losses(metric: Metric, full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """Compute and check the losses."""
    with torch.no_grad():
        losses = losses_of(metric, full, variant)
    if not bool(torch.isfinite(losses).all()):
        bad = int((~losses.isfinite()).sum())
        raise MeasurementError(f"metric {metric.name} gives {bad} losses not finite; losses are finite numbers")
    return losses.double()


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=SAME)
