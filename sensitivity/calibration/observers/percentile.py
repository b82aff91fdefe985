"""The range ends at a high percentile of the magnitudes, from a histogram."""

from __future__ import annotations

import math

import torch

SHARE = 0.9999  # share of the magnitudes within the range
_BINS = 64  # bins per octave: the range is exact to a factor of 2^(1/64), 1.1 %
_LOW, _HIGH = -40, 40  # octaves of the histogram; other magnitudes are counted in the first or last bin


class Percentile:
    """Takes the magnitude below which 99.99 % lie, rounded up by at most 1.1 %.

    The bins are logarithmic and fixed, so that the order of the batches does not matter and memory is constant.
    """

    says = "magnitude that 99.99 % stay below"

    def __init__(self) -> None:
        self._counts = torch.zeros((_HIGH - _LOW) * _BINS, dtype=torch.int64, device="cpu")
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
