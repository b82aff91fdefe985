"""Calls the function and the probe of a metric. What one of the user's own raises becomes an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bitplan.sensitivity.metrics.base import Lazy, Metric
from bitplan.sensitivity.table import MeasurementError

_MOST = 200  # characters of a cause


def losses_of(metric: Metric, full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """The loss of each sample, (N,). A metric of the user's own gets copies, since it may write into them.

    Raises MeasurementError where such a metric raises, or returns something else than one real number a sample.
    """
    if is_built_in(metric):
        return metric.function(full, variant)
    losses: Any
    try:
        with _named(metric, full):
            losses = metric.function(full.clone(), variant.clone())
    except MeasurementError:
        if metric.additive and len(full) > 1:  # one of the samples, which the error then names
            for sample in range(len(full)):
                part = slice(sample, sample + 1)
                with _named(metric, full[part], f"output {sample + 1} of {len(full)}, "):
                    metric.function(full[part].clone(), variant[part].clone())
        raise
    if not isinstance(losses, torch.Tensor) or losses.shape != (len(full),):
        actual = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise MeasurementError(f"metric {metric.name} gives {actual} for {len(full)} outputs; it must give a tensor of "
                        f"shape ({len(full)},), one loss a sample")  # fmt: skip
    if losses.is_complex():
        raise MeasurementError(f"metric {metric.name} gives complex numbers; losses are real")
    return losses.double()


def probe_of(metric: Metric, full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A probe of a metric that has some, of the shape of `full`. Raises as `losses_of`."""
    assert metric.probe is not None
    if is_built_in(metric):
        return metric.probe(full, generator)
    with _named(metric, full, "", "the probe of metric"):
        weights: Any = metric.probe(full.clone(), generator)
    if not isinstance(weights, torch.Tensor) or weights.shape != full.shape or weights.is_complex():
        actual = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise MeasurementError(f"the probe of metric {metric.name} gives {actual} for outputs of shape "
                               f"{tuple(full.shape)}; it must give real numbers of that shape")  # fmt: skip
    return weights


def is_built_in(metric: Metric) -> bool:
    """Whether the loss of the metric is one of BitPlan's own table, whose errors are BitPlan's."""
    return isinstance(metric.function, Lazy)


@contextmanager
def _named(metric: Metric, full: torch.Tensor, where: str = "", what: str = "metric") -> Iterator[None]:
    """Turns what the user's code in the `with` raises, `sys.exit` included, into a MeasurementError."""
    try:
        yield
    except (KeyboardInterrupt, MeasurementError):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        reason = " ".join(str(error).split())[:_MOST]
        place = f"{where}of shape" if where else "outputs of shape"
        raise MeasurementError(f"{what} {metric.name} fails on {place} {tuple(full.shape)}: "
                        f"{type(error).__name__}: {reason}; correct it, or leave it out") from error  # fmt: skip
