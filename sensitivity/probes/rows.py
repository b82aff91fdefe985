"""In which order the rows of a layer hold the samples of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Rows = tuple[str, int]  # a layer and the number of its rows for each sample
Orders = Mapping[Rows, int | None]  # -> `Order.outer`; None for rows in another order, or that act on several samples


@dataclass(frozen=True)
class Order:
    """Rows in the order (outer, copies, batch, inner), of which the first is 1 where a sample's rows are consecutive.

    Attributes:
        outer: how often the batch is repeated, such as for guidance or for each frame.
        copies: the number of copies of the batch.
        batch: the number of samples in one of them.
    """

    outer: int
    copies: int
    batch: int

    def one_copy(self, x: Tensor) -> Tensor:
        """Of all rows those of the first copy, sample after sample."""
        if self.outer == 1:
            return x[: len(x) // self.copies].clone()
        return self._unfolded(x)[:, 0].movedim(1, 0).flatten(0, 2)

    def by_copy(self, x: Tensor) -> Tensor:
        """All rows, copy after copy and in each sample after sample."""
        return x if self.outer == 1 else self._unfolded(x).movedim(0, 2).flatten(0, 3)

    def _unfolded(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (self.outer, self.copies, self.batch, -1))
