"""The sentence on the pairs that moved most, for losses of extreme sizes."""

from __future__ import annotations

import pytest

from bitplan.planner.finetunes.verdict import _odd
from bitplan.sensitivity.agreement import Compared
from bitplan.sensitivity.table import Measurement


def measured(scheme: str, mean: float) -> Measurement:
    return Measurement("unet.a", scheme, "nsr", mean, 0.1, 4)


@pytest.mark.parametrize(("old", "new"), [(1.0, 5e-324), (5e-324, 1e200), (1e308, 5e-324)])
def test_quotients_beyond_floats_are_told(old: float, new: float) -> None:
    means = {"w8a8": (1.0, 1.0), "w4a8": (1.0, 1.0), "w2a8": (old, new)}
    compared = [Compared(measured(s, before), measured(s, after), 0.0) for s, (before, after) in means.items()]
    assert "unet.a at w2a8 ×" in _odd(compared)
