"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import torch

OUTPUTS = ("images", "video", "audio", "array")  # what a pipeline may put out
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Probe = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _not_missing() -> str | None:
    return None


@dataclass(frozen=True)
class Metric:
    """One loss: lower is better, 0 for identical runs.

    family: one of `bitplan.sensitivity.table.FAMILIES`, or OWN.
    reads: the reading that it compares (a key of `bitplan.sensitivity.runs.outcome.READINGS`).
    says: what its number means, in a few words for tables.
    function: (full, variant) -> float64 losses, one a sample. Both are that reading, samples first.
    probe: (full, generator) -> weights v shaped like `full`, by which a small change d of the reading tells the loss:
    for a signed metric v is its gradient and v.d the loss to first order; for the others v is random, with E[(v.d)^2]
    the loss to second order, their gradient being 0 at d = 0. None: `curvature.probe_for` may find one.
    signed: a sample may be negative. symmetric: full and variant may be swapped.
    outputs: the kinds of output that it is for, of `OUTPUTS`; default: those for which it is measured unasked.
    texts: it needs conditions that are texts.
    additive: its losses of single layers add up, and those of a few samples average, which profiling needs; a loss of
    the whole set, whose samples do not stand alone, is for evaluations only.
    missing: why it cannot be had here, in one line, or None.
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


def loss_by_frame(sample: int) -> Callable[[Loss], Loss]:
    """For a loss of samples of so many dimensions, the batch included: with one more, that of frames, the mean over
    the frames of a sample."""

    def wrap(one: Loss) -> Loss:
        @wraps(one)
        def losses(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
            if full.dim() == sample:
                return one(full, variant)
            return one(full.flatten(0, 1), variant.flatten(0, 1)).unflatten(0, full.shape[:2]).mean(1)

        return losses

    return wrap


def probe_by_frame(sample: int) -> Callable[[Probe], Probe]:
    """The probes of what `loss_by_frame` makes: frames have probes of their own, whose signs make them independent."""

    def wrap(one: Probe) -> Probe:
        @wraps(one)
        def weights(full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            if full.dim() == sample:
                return one(full, generator)
            return one(full.flatten(0, 1), generator).unflatten(0, full.shape[:2]) / full.shape[1] ** 0.5

        return weights

    return wrap
