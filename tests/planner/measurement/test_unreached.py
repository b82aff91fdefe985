"""Layers that see one input for the whole batch: no probe tells samples apart there, so they are measured alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.measurement.jobs import JobResult
from bitplan.planner.measurement.rounds import _write_round
from bitplan.planner.profiles.profile import content_digest, open_profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.sensitivity.table import MeasurementError
from tests.planner.pipelines.toy_subjects import made

OPTIONS: dict[str, Any] = {"schemes": ("w8a8", "w2a8"), "count": 4, "checks": 0, "timesteps": 2}


def profiled(out: Path, **options: Any) -> Path:
    return bitplan.profile(made(table=True), out, **OPTIONS | options)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return profiled(tmp_path_factory.mktemp("both") / "t.profile")


def sources(path: Path) -> dict[str, str]:
    with open_profile(path) as store:
        return {m.layer: m.source for m in store.measurements()}


def test_they_are_measured_and_counted(both: Path, tmp_path: Path) -> None:
    assert sources(both) == {
        "denoiser.first": "probes", "denoiser.known": "probes", "denoiser.last": "probes",
        "denoiser.table": "exhaustive",
    }  # fmt: skip
    with open_profile(both) as store:
        assert "denoiser.table" not in {layer for layer, _, _ in responses_of(store)}
        assert probed(store).unreached == ("denoiser.table",)
        losses = {(m.layer, m.scheme): m.mean for m in store.measurements() if m.metric == "nsr"}
    plan = bitplan.solve(both, tmp_path / "p.plan.yaml", uniform="w2a8", kernels="fake")
    found, rest = bitplan.predict(plan, both)["nsr"], losses["denoiser.table", "w2a8"]
    assert found.joint > rest > 0
    assert found.joint == pytest.approx((found.added - rest) * found.interaction + rest)


def test_they_are_not_probed_again(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run of little time would spend it on them, again and again."""
    out = profiled(tmp_path / "t.profile", time="0.001s")
    assert sources(out).keys() < sources(both).keys()
    monkeypatch.setattr("bitplan.planner.measurement.methods.probes.measure", lambda *_: pytest.fail("probed again"))
    with open_profile(profiled(out)) as ours, open_profile(both) as theirs:
        assert content_digest(ours) == content_digest(theirs)


def test_a_share_of_them_alone_is_said(both: Path, tmp_path: Path) -> None:
    """In one line, though the share's layers can be measured."""
    with open_profile(both) as store:
        share = f"{store.layers().index('denoiser.table') + 1}/4"
    with pytest.raises(MeasurementError, match="no layer can be probed: no gradient of .*--method exhaustive"):
        profiled(tmp_path / "t.profile", part=share)
    assert sources(profiled(tmp_path / "t.profile", part=share, method="exhaustive")) == {
        "denoiser.table": "exhaustive"
    }


def test_metrics_without_probes_are_no_fault_of_the_layers(both: Path) -> None:
    results = [JobResult(("denoiser.first", "w2a8"), (), (8, 9))]
    with open_profile(both) as store, pytest.raises(MeasurementError, match="can be probed: no metric has a probe"):
        _write_round(store, results, {})
