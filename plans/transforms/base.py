"""What a transform is: a named change to how a layer's input is scaled before it is rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """name: the word after `+` in a scheme's text; says: one line for tables.

    row_ranges: (leading shape of the input, range of all tokens, range of this transform's tokens) -> (rows,) float32
    on the CPU: the largest magnitude that each row of the input, flattened to (rows, features), can hold. Raises
    ValueError where the input has no such tokens.
    """

    name: str
    says: str
    row_ranges: Callable[[tuple[int, ...], float, float], Tensor]
