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
    signed: a sample may be negative. symmetric: full and variant may be swapped.
    """

    name: str
    family: str
    reads: str
    says: str
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    signed: bool = False
    symmetric: bool = False
