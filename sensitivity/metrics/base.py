"""A metric and the table of metrics. Imports no torch: names, families and descriptions are read without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

OUTPUTS = ("images", "video", "audio", "array")  # the kinds of output that a pipeline may have
Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
Probe: TypeAlias = "Callable[[torch.Tensor, torch.Generator], torch.Tensor]"


@dataclass(frozen=True)
class Lazy:
    """A function that is imported when it is first called.

    Attributes:
        place: `package.module:name` of the function.
    """

    place: str

    @cached_property
    def _function(self) -> Callable[..., Any]:
        module, _, name = self.place.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def _not_missing() -> str | None:
    return None


@dataclass(frozen=True)
class Metric:
    """A loss: lower is better, 0 for identical runs.

    A probe is a weighting v of the full-precision reading, of the same shape. For a signed metric v is the gradient,
    and v.d is the loss of a small change d to first order. For any other metric the gradient at d = 0 is 0, v is
    random, and E[(v.d)^2] is the loss to second order.

    Attributes:
        name: its name in tables, files and options.
        family: one of `bitplan.sensitivity.table.FAMILIES`, or `OWN`.
        reads: the reading that it compares, a key of `bitplan.sensitivity.runs.outcome.READINGS`.
        says: what its number means, in a few words for tables.
        function: (full, variant) -> (N,) float64 losses; both arguments are that reading, (N, ...).
        signed: whether the loss of a sample may be negative.
        symmetric: whether full and variant may be swapped.
        probe: (full, generator) -> v; if it is None, `curvature.probe_for` may derive one.
        outputs: the kinds of output that it is defined for, of `OUTPUTS`.
        default: the kinds of output for which it is measured by default.
        texts: whether it needs conditions that are texts.
        additive: whether losses of single layers add up and losses of single samples average, which profiling needs;
            a loss of the whole set of samples is not additive, and only evaluations measure it.
        missing: returns why it is not available here, in one line, or None.
    """

    name: str
    family: str
    reads: str
    says: str
    function: Loss
    signed: bool = False
    symmetric: bool = False
    probe: Probe | None = None
    outputs: tuple[str, ...] = OUTPUTS
    default: tuple[str, ...] = ()
    texts: bool = False
    additive: bool = True
    missing: Callable[[], str | None] = _not_missing

    @property
    def embeds(self) -> bool:
        """Whether it needs an encoder of images."""
        return self.reads in ("embeds", "similarity")


class MetricTable(dict[str, Metric]):
    """The metrics by name, in the order in which tables show them."""

    def register(self, metric: Metric) -> Metric:
        """Add a metric as the last one and return it. Raises ValueError if its name is taken."""
        if metric.name in self:
            raise ValueError(f"a metric {metric.name!r} exists already; choose another name")
        self[metric.name] = metric
        return metric

    def unregister(self, name: str) -> Metric:
        """Remove a metric and return it. Raises KeyError if there is none of that name."""
        return self.pop(name)


def loss_by_frame(dimensions: int) -> Callable[[Loss], Loss]:
    """Decorate a loss of samples so that it also takes videos, whose loss is the mean over their frames.

    dimensions: of the samples, the batch included; a video has one more, the frames, behind the batch.
    """

    def wrap(loss: Loss) -> Loss:
        @wraps(loss)
        def losses(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
            if full.dim() == dimensions:
                return loss(full, variant)
            return loss(full.flatten(0, 1), variant.flatten(0, 1)).unflatten(0, full.shape[:2]).mean(1)

        return losses

    return wrap


def probe_by_frame(dimensions: int) -> Callable[[Probe], Probe]:
    """Decorate the probe of a loss that `loss_by_frame` decorates. Frames have independent random signs."""

    def wrap(probe: Probe) -> Probe:
        @wraps(probe)
        def weights(full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            if full.dim() == dimensions:
                return probe(full, generator)
            return probe(full.flatten(0, 1), generator).unflatten(0, full.shape[:2]) / full.shape[1] ** 0.5

        return weights

    return wrap
