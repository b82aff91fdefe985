"""Noisy timings: plans of the fastest schemes are neither optimistic nor slower, and every reader sees the same."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bitplan import inspect, merge, solve, sweep, verify
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.profiles.digests import profile_digest
from bitplan.planner.profiles.profile import Cost, Pair, ProfileError, open_profile
from bitplan.planner.profiles.timings import steadied
from tests.planner.support.older import older

SCHEMES = {"keep": 1.0, "w8a8": 0.95, "w6a8": 1.0, "w5a8": 1.02, "w4a8": 0.97, "w3a8": 1.05, "w2a8": 0.99, "w4a16": 1.1}
LAYERS = [f"l{i}" for i in range(30)]


def _true(spread: float) -> dict[Pair, float]:
    random = np.random.default_rng(1)
    sizes = np.exp(random.normal(0, 1, len(LAYERS)))
    return {
        (layer, scheme): float(size * factor * np.exp(spread * random.normal()))
        for layer, size in zip(LAYERS, sizes, strict=True)
        for scheme, factor in SCHEMES.items()
    }


def _costs(ms: Mapping[Pair, float], relative: float | None, simulated: tuple[Pair, ...] = ()) -> list[Cost]:
    return [Cost(*pair, 1, one, "", pair in simulated, relative and relative * one) for pair, one in ms.items()]


def _steady(ms: Mapping[Pair, float], relative: float | None, simulated: tuple[Pair, ...] = ()) -> dict[Pair, float]:
    return {(cost.layer, cost.scheme): cost.ms or 0.0 for cost in steadied(_costs(ms, relative, simulated))}


def _judged(true: dict[Pair, float], believed: dict[Pair, float]) -> tuple[float, float]:
    """The actual time of the fastest plan over its predicted time, and the actual time."""
    picks = [min(((layer, s) for s in SCHEMES), key=lambda pair: believed[pair]) for layer in LAYERS]
    actual = sum(true[pair] for pair in picks)
    return actual / sum(believed[pair] for pair in picks), actual


@pytest.mark.parametrize("spread", [0.0, 0.1])
@pytest.mark.parametrize("noise", [0.2, 0.25])
def test_the_fastest_plan_takes_the_time_that_is_predicted(noise: float, spread: float) -> None:
    true, found = _true(spread), []
    for seed in range(16):
        random = np.random.default_rng(seed)
        raw = {pair: ms * float(np.exp(noise * random.normal())) for pair, ms in true.items()}
        found.append((*_judged(true, raw), *_judged(true, _steady(raw, noise))))
    raw_ratio, raw_time, ratio, time = np.median(found, axis=0)
    assert raw_ratio > 1.2 and 0.9 < ratio < 1.1
    assert time <= 1.03 * raw_time


def test_exact_timings_and_those_without_an_error_stay() -> None:
    true = _true(0.3)
    assert _steady(true, None) == true and _steady(true, 0.0) == true
    assert _steady(true, 1e-6) == pytest.approx(true, rel=1e-4)


def test_layers_of_one_timing_count_once_and_few_timings_are_left_alone() -> None:
    few = {(layer, scheme): ms for layer, ms in zip("abc", (2.0, 2.0, 8.0), strict=True) for scheme in ("keep", "w8a8")}
    assert _steady(few, 0.5) == few
    true = _true(0.1)
    twins = true | {(f"twin{i}", scheme): true["l0", scheme] for i in range(50) for scheme in SCHEMES}
    steady = _steady(twins, 0.2)
    assert {pair: steady[pair] for pair in true} == _steady(true, 0.2) != true
    assert all(steady[f"twin{i}", scheme] == steady["l0", scheme] for i in range(50) for scheme in SCHEMES)


def test_a_simulated_scheme_takes_the_time_of_full_precision() -> None:
    true = _true(0.1)
    simulated = tuple((layer, "w2a8") for layer in LAYERS[::2])
    steady = _steady(true | {(layer, s): true[layer, "keep"] for layer, s in simulated}, 0.2, simulated)
    assert all(steady[pair] == steady[pair[0], "keep"] for pair in simulated)
    assert any(steady[layer, "w2a8"] != steady[layer, "keep"] for layer in LAYERS[1::2])


def test_extreme_errors_and_timings_are_finite() -> None:
    odd = [(5e-324, 1e12), (1e12, 5e-324), (1e12, 1e12), (1e-300, 1e-300), (1.0, None), (0.0, 1.0), (None, None)]
    costs = [Cost(f"l{i}", s, 1, ms, "", False, error) for i, (ms, error) in enumerate(odd) for s in ("keep", "w8a8")]
    with np.errstate(all="raise"):
        found = [cost.ms for cost in steadied(costs)]
    assert all(ms is None or (np.isfinite(ms) and ms >= 0) for ms in found)
    assert found[8:] == [cost.ms for cost in costs[8:]]


def _noisy(source: Path, out: Path) -> Path:
    """A copy of a profile whose timings are noisy and have errors."""
    out.write_bytes(source.read_bytes())
    random = np.random.default_rng(0)
    with open_profile(out, "a") as store:
        store.write_costs([
            Cost(c.layer, c.scheme, c.bytes, ms := float(np.exp(random.normal())), c.kernel, c.simulated, 0.5 * ms)
            for c in store.costs()
        ])  # fmt: skip
    return out


def test_a_profile_holds_what_was_measured_and_every_reader_sees_the_steadied_times(
    finished: Path, tmp_path: Path
) -> None:
    noisy = _noisy(finished, tmp_path / "noisy.profile")
    with open_profile(noisy) as store:
        costs, evidence = store.costs(), read_evidence(store)
    assert all(cost.ms and cost.error == 0.5 * cost.ms for cost in costs)
    steady = {(cost.layer, cost.scheme): cost.ms or 0.0 for cost in steadied(costs)}
    assert evidence.ms == steady != {(cost.layer, cost.scheme): cost.ms for cost in costs}
    plan = solve(noisy, tmp_path / "p.yaml", objective="ms", memory="90%", kernels="fake")
    expected = sum(steady[pair] for pair in plan.schemes.items())
    assert plan.predictions["total"]["ms"] == pytest.approx(expected, rel=1e-12)
    assert not verify(plan, noisy).failures
    shown = {row["scheme"]: row["ms"] for row in json.loads(json.dumps(inspect(noisy).to_json()))["schemes"]}
    full = sum(ms for (_, scheme), ms in steady.items() if scheme == "keep")
    assert shown["keep"] == pytest.approx(full, rel=1e-12)
    swept = sweep(noisy, tmp_path / "sweep", points=2, kernels="fake")
    assert swept.full.totals["ms"] == pytest.approx(full, rel=1e-12)


def test_merging_keeps_the_errors(finished: Path, tmp_path: Path) -> None:
    noisy = _noisy(finished, tmp_path / "noisy.profile")
    shutil.copy(noisy, tmp_path / "twin.profile")
    merge([noisy, tmp_path / "twin.profile"], tmp_path / "merged.profile")
    with open_profile(noisy) as one, open_profile(tmp_path / "merged.profile") as two:
        assert one.costs() == two.costs() and all(cost.error for cost in two.costs())


def test_older_formats_are_read_as_they_are_continued_and_verified(finished: Path, tmp_path: Path) -> None:
    old = older(finished, tmp_path / "old.profile")
    plan = solve(old, tmp_path / "p.yaml", objective="ms", memory="90%", kernels="fake")
    with open_profile(old, "a") as store:
        costs, digest = store.costs(), profile_digest(store)
        assert read_evidence(store).ms == {(cost.layer, cost.scheme): cost.ms for cost in costs}
        store.write_costs(Cost(c.layer, c.scheme, c.bytes, c.ms, c.kernel, c.simulated, 0.5) for c in costs)
        assert store.costs() == costs and all(cost.error is None for cost in costs)
        assert profile_digest(store) == digest
    assert not verify(plan, old).failures


@pytest.mark.parametrize("error", ["-1.0", "1e300", "'x'", "9e999"])
def test_an_error_that_no_timing_has_is_refused(finished: Path, tmp_path: Path, error: str) -> None:
    bad = tmp_path / "bad.profile"
    bad.write_bytes(finished.read_bytes())
    with sqlite3.connect(bad) as db:
        db.execute(f"UPDATE costs SET error = {error} WHERE scheme = 'keep'")
    with pytest.raises(ProfileError, match="costs, row .*: error is .* must be a number from 0 to 1e\\+12, or NULL"):
        open_profile(bad)
