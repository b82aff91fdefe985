"""Agreement of measurements of extreme sizes."""

from __future__ import annotations

import math

import pytest

from bitplan.sensitivity.agreement import MOST, Compared, agreement_of
from bitplan.sensitivity.table import Measurement


@pytest.mark.parametrize("small", [5e-324, 1e-310, 1e-300])
def test_an_error_far_above_its_loss_counts_as_the_most(small: float) -> None:
    compared = [
        Compared(
            Measurement("unet.a", f"w{bits}a8", "nsr", small * 2**bits, 1.0, 4),
            Measurement("unet.a", f"w{bits}a8", "nsr", small * 2**bits, 1.0, 4), 0.0,
        )
        for bits in (2, 3, 4, 5)
    ]  # fmt: skip
    assert all(max(each.errors) <= 2 * MOST for each in compared)
    found = agreement_of(compared, "nsr", "quality")
    assert found.spearman == pytest.approx(1) and found.factor == 1.0 and math.isfinite(found.noise)
