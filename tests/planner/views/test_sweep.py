"""The frontier equals solving each limit separately."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.units import bits_to_bytes
from bitplan.planner.views.sweep import Sweep, limits_between, name_of
from bitplan.planner.views.view import ROWS, View, read_view
from bitplan.plans.plan import load_plan


def schemes(view: View, picks: tuple[int, ...]) -> dict[str, str]:
    return {cell.layer: cell.options[pick].scheme for cell, pick in zip(view.cells, picks, strict=True)}


def test_every_point_is_what_solve_gives(finished: Path, tmp_path: Path, latency: Any, command_line: Any) -> None:
    limit, out = latency(memory="10%"), tmp_path / "run"
    result = command_line(
        "sweep", finished, "--from", "10%", "--to", "50%", "--points", 5, "--latency", limit, "--out", out
    )
    assert result.exit_code == 0, result.stderr
    view = read_view(out / "sweep.json")
    limits = [point.limit for point in view.points]
    assert limits == sorted(limits, reverse=True) and len(limits) == 5
    for point in view.points:
        alone = bitplan.solve(finished, tmp_path / "p.yaml", memory=f"{point.limit}B", latency=limit)
        assert point.objective == pytest.approx(alone.solver["objective"], rel=1e-8)
        assert point.status == "optimal" and point.plan is not None
        plan = load_plan(out / point.plan)
        assert plan.budgets == alone.budgets
        assert plan.solver["objective"] == point.objective
        assert plan.predictions["total"] == point.totals
        assert plan.schemes == schemes(view, point.picks)
        assert bitplan.verify(plan, finished).failures == ()
    objectives = [point.objective or 0.0 for point in view.points]
    assert objectives == sorted(objectives) and objectives[0] < objectives[-1]
    assert len(list((out / "plans").iterdir())) == 5


def test_by_default_from_the_smallest_to_full_precision_in_even_ratios(finished: Path, tmp_path: Path) -> None:
    view = bitplan.sweep(finished, tmp_path / "run", points=9)
    least = bitplan.solve(finished, tmp_path / "p.yaml", objective="bytes=1").predictions["total"]["bytes"]
    limits = [point.limit or 0 for point in view.points]
    assert [limits[0], limits[-1], view.smallest] == [view.full.totals["bytes"], least, least]
    ratios = [tight / loose for loose, tight in zip(limits, limits[1:], strict=False)]
    assert ratios == pytest.approx([(least / limits[0]) ** (1 / 8)] * 8, rel=1e-4)
    assert view.points[0].picks == view.full.picks
    assert all(point.status == "optimal" for point in view.points)
    assert {one.name for one in view.uniform} >= {"w8a8", "w2ma8"} and view.by == "bytes"


def test_linear_spacing_and_bits(finished: Path, tmp_path: Path) -> None:
    even = bitplan.sweep(finished, tmp_path / "a", points=5, spacing="linear")
    limits = [point.limit or 0 for point in even.points]
    steps = [loose - tight for loose, tight in zip(limits, limits[1:], strict=False)]
    assert max(steps) - min(steps) <= 1
    by_bits = bitplan.sweep(finished, tmp_path / "b", by="bits", start="4.5", stop="8", points=3)
    weights = sum(math.prod(cell.weight) for cell in by_bits.cells)
    assert [by_bits.points[0].limit, by_bits.points[-1].limit] == [bits_to_bytes(b, weights) for b in (8, 4.5)]
    assert by_bits.points[1].limit == pytest.approx((8 * 4.5) ** 0.5 * weights / 8, abs=1)


def test_limits_hold_both_ends_and_no_number_twice() -> None:
    assert limits_between(4, 7, Sweep("memory", 40)) == (7, 6, 5, 4)
    assert limits_between(1.0, 16.0, Sweep("nsr", 3)) == (16.0, 4.0, 1.0)
    assert limits_between(16.0, 1.0, Sweep("nsr", 3, spacing="linear")) == (16.0, 8.5, 1.0)
    assert limits_between(0.0, 1.0, Sweep("nsr", 3)) == (1.0, 0.5, 0.0)
    assert limits_between(3, 3, Sweep("memory", 2)) == (3,)
    with pytest.raises(UserError, match="--from above 0"):
        limits_between(0.0, 1.0, Sweep("nsr", 3, spacing="log"))


def test_names_are_names_of_files() -> None:
    assert name_of("bytes", 123) == "bytes-123" and name_of("my/loss", 1.5e-7) == "my_loss-1.5e-07"


def test_quality_against_alignment_at_fixed_memory(finished: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"memory": "12%", "objective": "quality"}
    view = bitplan.sweep(finished, tmp_path / "run", by="alignment", points=6, **options)
    free = bitplan.solve(finished, tmp_path / "p.yaml", **options).predictions["total"]["alignment"]
    least = bitplan.solve(finished, tmp_path / "p.yaml", memory="12%", objective="alignment").solver["objective"]
    assert [view.points[0].limit, view.points[-1].limit] == pytest.approx([free, least], rel=1e-12)
    assert [point.status for point in view.points] == ["optimal"] * 6
    assert all(p.totals["alignment"] <= (p.limit or 0) * (1 + 1e-12) for p in view.points)
    qualities = [point.objective or 0.0 for point in view.points]
    assert qualities == sorted(qualities) and qualities[0] < qualities[-1]
    for point in view.points:
        assert bitplan.verify(tmp_path / "run" / str(point.plan), finished).failures == ()


def test_limits_by_schemes(finished: Path, tmp_path: Path) -> None:
    view = bitplan.sweep(
        finished, tmp_path / "run", by="nsr", start="w8a8", stop="w2ma8", points=2, objective="bytes=1"
    )
    sums = [
        bitplan.solve(finished, tmp_path / "p.yaml", uniform=name).predictions["total"]["nsr"]
        for name in ("w2ma8", "w8a8")
    ]
    assert [point.limit for point in view.points] == sums
    assert (view.points[0].objective or 0) < (view.points[1].objective or 0)


def test_limits_out_of_reach_are_said_with_what_can_be_reached(finished: Path, tmp_path: Path) -> None:
    view = bitplan.sweep(finished, tmp_path / "run", start="1%", stop="20%", points=4)
    statuses = [point.status for point in view.points]
    assert statuses[0] == "optimal" and statuses[-1] == "infeasible"
    least = bitplan.solve(finished, tmp_path / "p.yaml", objective="bytes=1").predictions["total"]["bytes"]
    assert view.smallest == least
    for point in view.points:
        assert (point.objective is None) == ((point.limit or 0) < least) == (point.plan is None)
    assert "the smallest reachable bytes is" in str(view)
    assert read_view(tmp_path / "run/sweep.json") == view


def test_pins_and_confidence_travel_into_the_plans(finished: Path, tmp_path: Path) -> None:
    view = bitplan.sweep(
        finished, tmp_path, start="12%", stop="20%", points=2, confidence=0.9, pins={"unet.conv_in": "w2ma8"}
    )
    for point in view.points:
        plan = load_plan(tmp_path / str(point.plan))
        assert plan.schemes["unet.conv_in"] == "w2ma8"
        assert (plan.solver["pins"], plan.solver["confidence"]) == ({"unet.conv_in": "w2ma8"}, 0.9)
        assert bitplan.verify(plan, finished).failures == ()


def test_a_long_frontier_is_told_shortly(finished: Path, tmp_path: Path) -> None:
    view = bitplan.sweep(finished, tmp_path, points=40, gap=1e-2)
    lines = str(view).splitlines()
    assert len(lines) == ROWS + 3 and lines[-1] == f"{ROWS} of 40 limits"
    assert lines[2].split("|")[-2].strip() == "0"  # full precision loses nothing


def test_what_is_there_is_taken_up_and_what_is_not_the_same_is_solved_anew(finished: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"start": "10%", "stop": "40%", "points": 3}
    first = bitplan.sweep(finished, tmp_path, **asked)
    stamp = os.stat(tmp_path / "sweep.json").st_mtime_ns
    assert bitplan.sweep(finished, tmp_path, **asked) == first
    assert os.stat(tmp_path / "sweep.json").st_mtime_ns == stamp
    other = bitplan.sweep(finished, tmp_path, **asked | {"objective": "quality"})
    assert other.weights == {"quality": 1.0} and read_view(tmp_path / "sweep.json") == other
    fewer = bitplan.sweep(finished, tmp_path, **asked | {"points": 2})
    names = {f"{point.name}.plan.yaml" for point in fewer.points}
    assert {path.name for path in (tmp_path / "plans").iterdir()} == names
    (tmp_path / str(fewer.points[0].plan)).unlink()
    assert bitplan.sweep(finished, tmp_path, **asked | {"points": 2}) == fewer
    assert (tmp_path / str(fewer.points[0].plan)).is_file()


@pytest.mark.parametrize("part", ["layer", "bytes", "column", "model", "plan"])
def test_an_edited_sweep_is_solved_anew(part: str, finished: Path, tmp_path: Path) -> None:
    view = bitplan.sweep(finished, tmp_path / "run", points=3)
    place = tmp_path / "run" / "sweep.json"
    before = place.read_text("utf-8")
    data = json.loads(before)
    if part == "layer":
        data["cells"][0]["layer"] = "unet.other"
    elif part == "bytes":
        data["cells"][0]["options"][0]["bytes"] += 1
    elif part == "column":
        data["columns"][-1]["unit"] = "other"
    elif part == "plan":
        del data["points"][-1]["plan"]
    else:
        data["model"]["name"] = "other"
    place.write_text(json.dumps(data), "utf-8")
    again = bitplan.sweep(finished, tmp_path / "run", points=3)
    assert again.cells == view.cells and place.read_text("utf-8") == before
