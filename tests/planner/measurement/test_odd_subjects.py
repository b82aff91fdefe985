"""Estimates by probes are near exhaustive measurements, however a pipeline calls its denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.profile import open_profile
from tests.planner.measurement.odd_subjects import CALLS, odd

SUBJECTS: dict[str, dict[str, Any]] = {
    **{how: {"how": how} for how in CALLS},
    "parameters of the run": {"how": "plain", "parameters": True},
    "one condition at a time": {"how": "plain", "conditions": 1, "one_at_a_time": True},
    "one at a time, consumed": {"how": "consumed", "conditions": 1, "one_at_a_time": True},
}
OPTIONS: dict[str, Any] = {"schemes": ("w4a8", "w3a8"), "checks": 0, "timesteps": 2, "probes": 64}


def losses(subject: Subject, out: Path, method: str) -> dict[tuple[str, str, str], float]:
    with open_profile(bitplan.profile(subject, out, method=method, **OPTIONS)) as store:
        measured = store.measurements()
    assert {m.source for m in measured} == {method}
    return {(m.layer, m.scheme, m.metric): m.mean for m in measured}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_estimates_are_those_of_exhaustive_measurements(kind: str, tmp_path: Path) -> None:
    probes, exhaustive = (losses(odd(**SUBJECTS[kind]), tmp_path / f"{m}.profile", m) for m in ("probes", "exhaustive"))
    assert probes.keys() == exhaustive.keys() and len(probes) == 2 * 2 * 2
    for pair, exact in exhaustive.items():
        assert probes[pair] == pytest.approx(exact, rel=0.4), pair


def test_a_call_that_writes_is_repeated_on_what_it_got(tmp_path: Path) -> None:
    """Each repetition of a call reads the input that the pipeline gave, not what the call before wrote."""
    written = losses(odd("written"), tmp_path / "w.profile", "exhaustive")
    assert max(loss for (_, scheme, _), loss in written.items() if scheme == "w4a8") < 0.02
