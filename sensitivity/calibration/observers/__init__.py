"""The observers: how a range is found from magnitudes that stream by. To add one: its file here and a line below."""

from __future__ import annotations

from typing import Protocol

import torch

from bitplan.sensitivity.calibration.observers.minmax import MinMax  # noqa: F401
from bitplan.sensitivity.calibration.observers.percentile import Percentile  # noqa: F401


class Observer(Protocol):
    """Made anew for each stream. says: its rule in a few words, for tables."""

    says: str

    def __init__(self) -> None: ...

    def see(self, magnitudes: torch.Tensor) -> None:
        """Take in some magnitudes: finite, >= 0, at least one, of any shape and dtype. None of them is kept."""

    def absmax(self) -> float:
        """The end of the range for all that was seen; at most the largest magnitude, 0 when nothing was seen."""


OBSERVERS: dict[str, type[Observer]] = {"minmax": MinMax, "percentile": Percentile}
