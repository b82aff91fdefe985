"""The observers: how a range is computed from a stream of magnitudes. To add one: its file here and a line below."""

from __future__ import annotations

from typing import Protocol

import torch

from bitplan.sensitivity.calibration.observers.minmax import MinMax  # noqa: F401
from bitplan.sensitivity.calibration.observers.percentile import Percentile  # noqa: F401


class Observer(Protocol):
    """Computes the range of one stream of magnitudes.

    Attributes:
        says: its rule in a few words, for tables.
    """

    says: str

    def __init__(self) -> None: ...

    def see(self, magnitudes: torch.Tensor) -> None:
        """Add magnitudes: finite, >= 0, at least one, of any shape and dtype. They are not stored."""

    def absmax(self) -> float:
        """The end of the range: at most the largest magnitude, 0 if there was none."""


OBSERVERS: dict[str, type[Observer]] = {"minmax": MinMax, "percentile": Percentile}
