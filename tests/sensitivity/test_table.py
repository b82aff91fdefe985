from __future__ import annotations

import dataclasses
import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitplan.sensitivity.table import LossTable, Measurement, MeasurementError, summarise

ONE = Measurement("unet.a", "w4a8", "nsr", 0.5, 0.1, 4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_plain_samples_give_the_textbook_standard_error(samples):
    mean, stderr, count = summarise(samples)
    assert count == len(samples)
    assert mean == pytest.approx(statistics.fmean(samples), rel=1e-9, abs=1e-9)
    assert stderr == pytest.approx(statistics.stdev(samples) / math.sqrt(count), rel=1e-6, abs=1e-6)


def grid(values: np.ndarray) -> tuple[list[float], list[int], list[int]]:
    prompts, steps = values.shape
    return values.ravel().tolist(), list(range(steps)) * prompts, [p for p in range(prompts) for _ in range(steps)]


def test_on_a_grid_the_standard_error_is_that_of_the_prompts_means():
    values = np.random.default_rng(0).normal(size=(7, 3)) + np.array([0, 10, 100])
    samples, steps, prompts = grid(values)
    mean, stderr, count = summarise(samples, steps, prompts)
    assert (mean, count) == (pytest.approx(values.mean()), 21)
    assert stderr == pytest.approx(values.mean(1).std(ddof=1) / math.sqrt(7))


def test_strata_alone_give_the_stratified_standard_error():
    values = np.random.default_rng(1).normal(size=(6, 4)) * [1, 2, 3, 4] + [0, 10, 20, 30]
    samples, steps, _ = grid(values)
    expected = math.sqrt(sum(values[:, g].var(ddof=1) / 6 for g in range(4))) / 4
    assert summarise(samples, steps)[1] == pytest.approx(expected)


def test_copies_of_a_prompt_make_it_no_surer():
    samples = [0.1, 0.4, 0.9]
    alone = summarise(samples)[1]
    copied = summarise([x for x in samples for _ in range(5)], clusters=[p for p in range(3) for _ in range(5)])[1]
    assert copied == pytest.approx(alone)


@pytest.mark.parametrize(
    ("samples", "strata", "clusters"), [([1.0], (), ()), ([1.0, 2.0], (0, 1), ()), ([1.0, 2.0], (), (0, 0))]
)
def test_too_few_samples_leave_the_standard_error_unknown(samples, strata, clusters):
    assert summarise(samples, strata, clusters)[1] == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_samples_are_counted_and_named(bad):
    with pytest.raises(MeasurementError, match="nsr of unet.a at w2a8: 2 of 3 samples are not finite"):
        summarise([bad, 1.0, bad], what="nsr of unet.a at w2a8")


def test_no_samples_and_labels_that_do_not_fit():
    with pytest.raises(MeasurementError, match="no samples"):
        summarise([])
    with pytest.raises(MeasurementError, match="2 samples have 3 strata"):
        summarise([1.0, 2.0], strata=(1, 2, 3))


@pytest.mark.parametrize(
    "change", [{"mean": math.nan}, {"mean": math.inf}, {"stderr": -1.0}, {"stderr": math.nan}, {"count": 0}]
)
def test_a_measurement_refuses_numbers_out_of_range(change):
    with pytest.raises(MeasurementError, match="nsr of unet.a at w4a8"):
        dataclasses.replace(ONE, **change)


def test_losses_are_looked_up_and_clipped_at_zero():
    helped = dataclasses.replace(ONE, metric="clip_drop", mean=-0.25)
    table = LossTable.of(iter([ONE, helped]))
    assert table.loss("unet.a", "w4a8", "nsr") == 0.5
    assert table.loss("unet.a", "w4a8", "clip_drop") == 0.0
    assert table.measurement("unet.a", "w4a8", "clip_drop") is helped


def test_missing_names_the_holes_in_grid_order():
    table = LossTable.of([ONE])
    holes = table.missing(["unet.a", "unet.b"], iter(["w4a8", "w8a8"]), ["nsr"])
    assert holes == (("unet.a", "w8a8", "nsr"), ("unet.b", "w4a8", "nsr"), ("unet.b", "w8a8", "nsr"))


def test_a_lookup_in_vain_names_the_nearest():
    with pytest.raises(MeasurementError, match="at w4a16 is not among .* did you mean 'nsr of unet.a at w4a8'"):
        LossTable.of([ONE]).loss("unet.a", "w4a16", "nsr")
    with pytest.raises(MeasurementError, match="not among the 0 measurements; run the profile to its end$"):
        LossTable.of([]).loss("unet.a", "w4a16", "nsr")


def test_measured_twice_is_fine_only_when_equal():
    assert len(LossTable.of([ONE, ONE]).measurements) == 1
    with pytest.raises(MeasurementError, match=r"measured twice, as 0\.5 and 0\.75"):
        LossTable.of([ONE, dataclasses.replace(ONE, mean=0.75)])


def test_the_table_needs_no_torch():
    code = "import sys, sensitivity.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
