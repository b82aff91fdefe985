"""Noisy timings: plans of the fastest schemes are neither optimistic nor slower after `shrunk`."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.planner.costs.timings import Pair, shrunk

SCHEMES = {"keep": 1.0, "w8a8": 0.95, "w6a8": 1.0, "w5a8": 1.02, "w4a8": 0.97, "w3a8": 1.05, "w2a8": 0.99, "w4a16": 1.1}
SHAPES = {f"l{i}": f"shape{i}" for i in range(30)}


def _true(spread: float) -> dict[Pair, float]:
    random = np.random.default_rng(1)
    sizes = np.exp(random.normal(0, 1, len(SHAPES)))
    return {
        (layer, scheme): float(size * factor * np.exp(spread * random.normal()))
        for layer, size in zip(SHAPES, sizes, strict=True)
        for scheme, factor in SCHEMES.items()
    }


def _judged(true: dict[Pair, float], believed: dict[Pair, float]) -> tuple[float, float]:
    """The actual time of the fastest plan over its predicted time, and the actual time."""
    picks = [min(((layer, s) for s in SCHEMES), key=lambda pair: believed[pair]) for layer in SHAPES]
    actual = sum(true[pair] for pair in picks)
    return actual / sum(believed[pair] for pair in picks), actual


@pytest.mark.parametrize("spread", [0.0, 0.1])
@pytest.mark.parametrize("noise", [0.2, 0.25])
def test_the_fastest_plan_takes_the_time_that_is_predicted(noise: float, spread: float) -> None:
    true, found = _true(spread), []
    for seed in range(16):
        random = np.random.default_rng(seed)
        raw = {pair: ms * float(np.exp(noise * random.normal())) for pair, ms in true.items()}
        steady = shrunk(raw, {pair: noise * ms for pair, ms in raw.items()}, SHAPES)
        found.append((*_judged(true, raw), *_judged(true, steady)))
    raw_ratio, raw_time, ratio, time = np.median(found, axis=0)
    assert raw_ratio > 1.2 and 0.9 < ratio < 1.1
    assert time <= 1.03 * raw_time


def test_exact_timings_and_those_without_an_error_stay() -> None:
    true = _true(0.3)
    assert shrunk(true, {}, SHAPES) == true
    exact = shrunk(true, {pair: 1e-6 * ms for pair, ms in true.items()}, SHAPES)
    assert exact == pytest.approx(true, rel=1e-4)


def test_layers_of_one_shape_keep_one_timing_and_few_shapes_are_left_alone() -> None:
    two = {
        ("a", "keep"): 2.0,
        ("b", "keep"): 2.0,
        ("c", "keep"): 8.0,
        ("a", "w8a8"): 1.0,
        ("b", "w8a8"): 1.0,
        ("c", "w8a8"): 9.0,
    }
    steady = shrunk(two, {pair: 0.5 * ms for pair, ms in two.items()}, {"a": "s", "b": "s", "c": "t"})
    assert steady == pytest.approx(two) and steady["a", "keep"] == steady["b", "keep"]
