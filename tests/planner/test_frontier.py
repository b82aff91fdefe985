"""The frontier against solving each limit for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import planner
from plans.plan import load_plan


def test_every_point_is_what_solve_gives(finished: Path, tmp_path: Path, latency: Any, bitplan: Any) -> None:
    limit = latency(memory="10%")
    out, folder = tmp_path / "f.json", tmp_path / "plans"
    result = bitplan("frontier", finished, "--from", "10%", "--to", "50%", "--count", 5, "--latency", limit,
                     "--out", out, "--plans", folder)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(out.read_text())
    limits = [point["limit"] for point in found["points"]]
    assert limits == sorted(limits, reverse=True) and len(limits) == 5
    for point in found["points"]:
        alone = planner.solve(finished, tmp_path / "p.yaml", memory=f"{point['limit']}B", latency=limit)
        assert point["objective"] == pytest.approx(alone.solver["objective"], rel=1e-8)
        assert point["status"] == "optimal"
        plan = load_plan(folder / point["plan"])
        assert plan.budgets == alone.budgets
        assert plan.solver["objective"] == point["objective"]
        assert plan.predictions["total"] == point["totals"]
        assert planner.verify(plan, finished).failures == ()
    objectives = [point["objective"] for point in found["points"]]
    assert objectives == sorted(objectives) and objectives[0] < objectives[-1]
    assert len(list(folder.iterdir())) == 5


def test_quality_against_alignment_at_fixed_memory(finished: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory": "12%", "objective": "quality"}
    free = planner.solve(finished, tmp_path / "p.yaml", **options).predictions["total"]["alignment"]
    least = planner.solve(finished, tmp_path / "p.yaml", memory="12%", objective="alignment").solver["objective"]
    found = planner.frontier(
        finished, tmp_path / "f.json", column="alignment", start=str(least * 1.001), stop=str(free), count=6, **options
    )
    assert [point.status for point in found.points] == ["optimal"] * 6
    assert all(p.totals and p.totals["alignment"] <= p.limit * (1 + 1e-12) for p in found.points)
    qualities = [point.objective or 0.0 for point in found.points]
    assert qualities == sorted(qualities) and qualities[0] < qualities[-1]


def test_a_limit_by_a_scheme(finished: Path, tmp_path: Path) -> None:
    found = planner.frontier(finished, tmp_path / "f.json", column="nsr", start="w8a8", stop="w2ma8", count=2,
                             objective="bytes=1")  # fmt: skip
    sums = [
        planner.solve(finished, tmp_path / "p.yaml", uniform=name).predictions["total"]["nsr"]
        for name in ("w2ma8", "w8a8")
    ]
    assert [point.limit for point in found.points] == sums
    assert found.points[0].objective < found.points[1].objective


def test_limits_out_of_reach_are_said_with_what_can_be_reached(finished: Path, tmp_path: Path) -> None:
    found = planner.frontier(finished, tmp_path / "f.json", start="1%", stop="20%", count=4)
    statuses = [point.status for point in found.points]
    assert statuses[0] == "optimal" and statuses[-1] == "infeasible"
    least = planner.solve(finished, tmp_path / "p.yaml", objective="bytes=1").predictions["total"]["bytes"]
    assert found.smallest == least
    for point in found.points:
        assert (point.objective is None) == (point.limit < least)
    assert "the smallest reachable bytes is" in str(found)
    assert json.loads((tmp_path / "f.json").read_text())["smallest"] == least


def test_pins_and_confidence_travel_into_the_plans(finished: Path, tmp_path: Path) -> None:
    found = planner.frontier(
        finished, tmp_path / "f.json", start="12%", stop="20%", count=2, plans=tmp_path, confidence=0.9,
        pins={"unet.conv_in": "w2ma8"},
    )  # fmt: skip
    for point in found.points:
        plan = load_plan(tmp_path / str(point.plan))
        assert plan.schemes["unet.conv_in"] == "w2ma8"
        assert (plan.solver["pins"], plan.solver["confidence"]) == ({"unet.conv_in": "w2ma8"}, 0.9)
        assert planner.verify(plan, finished).failures == ()
