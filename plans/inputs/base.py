"""What an input format does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from bitplan.plans.inputs import InputFormat


class ActivationError(ValueError):
    """An input that cannot be rounded as its format says."""


@dataclass(frozen=True)
class ActivationScales:
    """Calibrated ranges of a layer's input, for static formats. They are magnitudes, not steps, so that one calibration
    serves every bit width: the step is range / (2^(bits-1) - 1).

    Attributes:
        tensor: the largest magnitude to represent, of all tokens, or of all but the first where `first` is set.
        first: the same for the first token alone; None where it is treated like the others.
    """

    tensor: float
    first: float | None = None

    def __post_init__(self) -> None:
        for value in (self.tensor, 0.0 if self.first is None else self.first):
            if not (isfinite(value) and value >= 0):
                raise ActivationError(f"a calibrated range must be finite and at least 0, got {value}; calibrate again")


@dataclass(frozen=True)
class Inputs:
    """The functions of a line in `INPUTS`.

    Attributes:
        fake: (input (..., K), format, calibrated ranges of a static format) -> the input rounded to its codes and
            back, in its own type. Raises ActivationError.
    """

    fake: Callable[[Tensor, InputFormat, ActivationScales | None], Tensor]
