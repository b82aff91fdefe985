"""Losses out of responses, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitplan.sensitivity.responses import Reading, measurement_of, samples_of
from bitplan.sensitivity.table import MeasurementError

PLAIN = Reading((0, 0), (4, 5), False)
SIGNED = Reading((0, 0), (4, 5), True)


def test_samples_by_hand() -> None:
    """Squares, then their mean over probes; a signed metric's one row as it is."""
    sums = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)
    assert samples_of(PLAIN, sums).tolist() == [5.0, 10.0]
    assert samples_of(SIGNED, sums[:1]).tolist() == [1.0, -2.0]


def test_measurement_by_hand() -> None:
    """Samples 5 and 10 of two prompts: mean 7.5, deviation 5 / root 2, over root 2."""
    found = measurement_of("unet.a", "w8a8", "nsr", PLAIN, np.array([[1.0, -2.0], [3.0, 4.0]]))
    assert (found.layer, found.scheme, found.metric, found.source) == ("unet.a", "w8a8", "nsr", "probes")
    assert (found.mean, found.count, found.finite) == (7.5, 2, True)
    assert found.stderr == pytest.approx(2.5)


def test_errors_are_over_prompts_once_timesteps_are_taken_out() -> None:
    """Two timesteps, the second 100 times the first, of two prompts that hardly differ."""
    reading = Reading((0, 0, 7, 7), (0, 1, 0, 1), False)
    sums = np.sqrt(np.array([[1.0, 1.1, 100.0, 100.1]]))
    found = measurement_of("unet.a", "w8a8", "nsr", reading, sums)
    assert found.mean == pytest.approx(50.55)
    assert 0 < found.stderr < 0.2


def test_signed_losses_may_be_negative() -> None:
    assert measurement_of("a", "b", "c", SIGNED, np.array([[-0.25, -0.75]])).mean == -0.5


def test_one_prompt_leaves_the_error_open() -> None:
    assert math.isinf(measurement_of("a", "b", "c", Reading((0,), (0,), False), np.ones((3, 1))).stderr)


def test_small_responses_are_squared_in_double() -> None:
    """1e-30 squared is 0 in float32."""
    found = samples_of(PLAIN, np.full((4, 2), 1e-30, np.float32)).tolist()
    assert found == pytest.approx([1e-60, 1e-60], rel=1e-6, abs=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(MeasurementError, match="nsr of unet.a at w8a8: 1 of 2 samples are not finite"):
        measurement_of("unet.a", "w8a8", "nsr", PLAIN, np.array([[bad, 1.0], [1.0, 1.0]]))


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_samples_that_nobody_knows_are_refused(samples: int) -> None:
    with pytest.raises(MeasurementError, match=f"nsr of unet.a at w8a8: {samples} responses of 2 samples"):
        measurement_of("unet.a", "w8a8", "nsr", PLAIN, np.ones((3, samples)))
