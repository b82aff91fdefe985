"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Metric:
    """One loss: lower is better, 0 for identical runs.

    family: one of `sensitivity.table.FAMILIES`.
    reads: the reading that it compares (a key of `sensitivity.outcome.READINGS`).
    says: what its number means, in a few words for tables.
    function: (full, variant) -> float64 losses, one a sample. Both are that reading, samples first.
    probe: (full, generator) -> weights v shaped like `full`, by which a small change d of the reading tells the loss:
    for a signed metric v is its gradient and v.d the loss to first order; for the others v is random, with E[(v.d)^2]
    the loss to second order, their gradient being 0 at d = 0. None: it can be measured only exhaustively.
    signed: a sample may be negative. symmetric: full and variant may be swapped.
    """

    name: str
    family: str
    reads: str
    says: str
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    signed: bool = False
    symmetric: bool = False
    probe: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None
