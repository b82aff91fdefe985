"""A profile with nothing but what its format requires: every verb works, or says in one line what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.profiles.profile import Cost, Profile
from bitplan.sensitivity.table import Measurement
from tests.planner.support.profile_writer import MODEL, graph, layer

BYTES = {"keep": 16384, "w8a8": 4352, "w4a8": 2304}
LAYERS = [f"unet.{i}" for i in range(4)]


@pytest.fixture(params=[1.0, None], ids=["with times", "without times"])
def by_hand(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    out = tmp_path / "h.profile"
    losses = [
        Measurement(name, scheme, "nsr", (i + 1) * 64 / BYTES[scheme], 0.01, 8, True, "imported")
        for i, name in enumerate(LAYERS)
        for scheme in ("w8a8", "w4a8")
    ]
    with Profile.create(out, {"model": MODEL, "settings": {"prompts": ["a circle"]}}) as store:
        store.write_graph(graph(*(layer(name, 64, 64) for name in LAYERS)), tuple(BYTES))
        store.write_costs(Cost(n, s, size, request.param, "", False) for n in LAYERS for s, size in BYTES.items())
        store.write_measurements(losses, {"nsr": "quality"})
    return out


def test_what_only_profile_writes_is_not_needed(by_hand: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.yaml"
    assert "on 1 prompts\n" in str(bitplan.inspect(by_hand))
    plan = bitplan.solve(by_hand, out, memory="30%", objective="nsr")
    assert plan.predictions["total"]["bytes"] == 4 * BYTES["w8a8"] and plan.calibration["prompts"] == 1
    assert set(bitplan.solve(by_hand, out, uniform="w4a8").schemes.values()) == {"w4a8"}
    assert not bitplan.verify(out, by_hand, prove=True).failures
    assert len(bitplan.why(out, by_hand, "unet.1").alternatives) == 3 and str(bitplan.inspect(out, by_hand))
    bitplan.sweep(by_hand, tmp_path / "run", points=2)
    bitplan.report([tmp_path / "run"], tmp_path / "r.html")
    bitplan.cost(by_hand, tmp_path / "c.profile")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda own, tmp: bitplan.predict(tmp / "p.yaml", own), "has no responses; profile with --method probes"),
        (lambda own, tmp: bitplan.check(own, "scenes"), "does not say how to measure again"),
        (lambda own, tmp: bitplan.apply(tiny_pipe(), tmp / "p.yaml"), "layers of the plan are not in this model"),
    ],
)
def test_what_is_needed_is_said(by_hand: Path, tmp_path: Path, call: Any, said: str) -> None:
    bitplan.solve(by_hand, tmp_path / "p.yaml", memory="30%")
    with pytest.raises(ValueError, match=said):
        call(by_hand, tmp_path)


def tiny_pipe() -> Any:
    from tests import tiny

    return tiny.build_pipeline()
