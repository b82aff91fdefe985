"""The range ends at the largest magnitude."""

from __future__ import annotations

import torch


class MinMax:
    """Clips nothing: one outlier determines the range."""

    says = "largest magnitude seen"

    def __init__(self) -> None:
        self._absmax = 0.0

    def see(self, magnitudes: torch.Tensor) -> None:
        self._absmax = max(self._absmax, float(magnitudes.max()))

    def absmax(self) -> float:
        return self._absmax
