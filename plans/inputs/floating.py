"""Inputs as they come."""

from __future__ import annotations

from torch import Tensor

from bitplan.plans.inputs import InputFormat
from bitplan.plans.inputs.base import ActivationScales, Inputs


def fake(x: Tensor, fmt: InputFormat, scales: ActivationScales | None) -> Tensor:
    """The input itself."""
    return x


AS_THEY_COME = Inputs(fake)
