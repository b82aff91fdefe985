"""A high percentile of the magnitudes, from a histogram."""

from __future__ import annotations

import math

import torch

SHARE = 0.9999  # of the magnitudes lie within the range
_BINS = 64  # per octave: the range is found to within 2^(1/64), 1.1 %
_LOW, _HIGH = -40, 40  # octaves covered; what lies outside is counted at the ends


class Percentile:
    """The magnitude that 99.99 % stay below, rounded up by at most 1.1 %.

    The bins are logarithmic and fixed, so that the order of the batches changes nothing and memory stays constant.
    """

    says = "magnitude that 99.99 % stay below"

    def __init__(self) -> None:
        self._counts = torch.zeros((_HIGH - _LOW) * _BINS, dtype=torch.int64)
        self._absmax = 0.0

    def see(self, magnitudes: torch.Tensor) -> None:
        self._absmax = max(self._absmax, float(magnitudes.max()))
        octave = torch.log2(magnitudes.float().flatten())  # zeros go to -inf, hence to the lowest bin
        index = ((octave - _LOW) * _BINS).floor().clamp(0, len(self._counts) - 1).long()
        self._counts += torch.bincount(index, minlength=len(self._counts)).cpu()

    def absmax(self) -> float:
        total = int(self._counts.sum())
        if not total:
            return 0.0
        reached = self._counts.cumsum(0) >= SHARE * total
        octave = _LOW + (int(reached.int().argmax()) + 1) / _BINS
        return min(math.exp2(octave), self._absmax)
