"""The plans that come with BitPlan: they fit what is shipped, and say what the sweep they came with says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import published_plans
from benchmarks.published_plans import put, scenes_table, turbo_table
from diffusers import UNet2DConditionModel
from PIL import Image

import bitplan
from bitplan.planner.applied.binding import bind
from bitplan.planner.choice.published import ROOT, plan_file, published
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import architecture_fingerprint
from bitplan.planner.graph.trace import find_layers, survey
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.views.view import View, read_view
from bitplan.plans.plan import check_architecture, check_layers, load_plan

HERE = Path(__file__).parents[3]
SCENES = ROOT / "scenes"


@pytest.fixture(scope="module")
def view() -> View:
    return read_view(SCENES / "sweep.json")


def test_there_is_a_range_of_budgets(view: View) -> None:
    files = published("scenes")
    assert 12 <= len(files) <= 16 and set(files.values()) == {SCENES / str(point.plan) for point in view.points}
    whole = view.full.totals["bytes"]
    assert min(files) < 0.07 * whole and max(files) == pytest.approx(0.5 * whole, abs=1)
    assert sum(path.stat().st_size for path in ROOT.rglob("*")) < 1_600_000


def test_each_plan_says_what_its_layers_add_up_to(view: View) -> None:
    for point in view.points:
        plan = load_plan(SCENES / str(point.plan))
        chosen = [cell.options[pick] for cell, pick in zip(view.cells, point.picks, strict=True)]
        assert plan.schemes == {cell.layer: its.scheme for cell, its in zip(view.cells, chosen, strict=True)}
        total = plan.predictions["total"]
        assert total == point.totals and total["bytes"] == sum(its.bytes for its in chosen) <= point.limit
        for metric in ("nsr", "dssim", "clip_drop", "embed_drift"):
            # a loss below 0 is luck on a few prompts, and counts as none
            assert total[metric] == pytest.approx(sum(max(its.losses.get(metric, (0, 0))[0], 0) for its in chosen))
        assert plan.solver["status"] == "optimal" and plan.budgets == {"bytes": point.limit}


def test_every_plan_is_for_the_pipeline_that_is_shipped() -> None:
    pipe = load_pipeline("scenes")
    for path in published("scenes").values():
        bind(load_plan(path), {"unet": pipe.unet}, allow_mismatch=False)


def test_a_published_picture_is_what_its_plan_paints(view: View, tmp_path: Path) -> None:
    point = view.points[-2]
    for plan, one in ((SCENES / str(point.plan), point), (None, view.full)):
        (file,) = bitplan.paint(plan, "scenes", [view.conditions[0]], tmp_path / "p.png", seed=1000)
        new, old = (np.asarray(Image.open(path).convert("RGB"), int) for path in (file, SCENES / one.pictures[0]))
        assert np.abs(new - old).mean() < 1  # of 255: other machines round otherwise


def test_measured_losses_are_those_of_the_results_and_the_report(view: View) -> None:
    rows = json.loads((HERE / "benchmarks/results/published_plans.json").read_text())["scenes"]["rows"]
    measured = {row["name"]: {name: tuple(pair) for name, pair in row["measured"].items()} for row in rows}
    report = (SCENES / "report.md").read_text()
    for one in (*view.points, *view.uniform):
        if one.name in measured:
            assert measured[one.name] == one.measured
            assert f"| {one.name} " in report
    assert all(len(one.pictures) == 8 and one.measured for one in view.points)
    assert all((SCENES / name).is_file() for one in (*view.points, view.full) for name in one.pictures)


def test_names_of_published_plans(view: View, tmp_path: Path, monkeypatch: Any) -> None:
    limits = sorted(published("scenes"))
    whole = view.full.totals["bytes"]
    within = max(limit for limit in limits if limit <= 0.12 * whole)
    assert plan_file("scenes@12%") == published("scenes")[within]
    assert plan_file("scenes@1GiB") == published("scenes")[limits[-1]]
    assert plan_file(f"scenes@{limits[3]}") == published("scenes")[limits[3]]
    assert bitplan.inspect("scenes@12%") == bitplan.inspect(published("scenes")[within])
    assert plan_file("some/where@12%/p.yaml") == Path("some/where@12%/p.yaml")
    monkeypatch.chdir(tmp_path)
    Path("scenes@12%").touch()
    assert plan_file("scenes@12%") == Path("scenes@12%")
    with pytest.raises(UserError, match="the smallest plan published for scenes is for 2.69 MiB, above 3%"):
        plan_file("scenes@3%")
    with pytest.raises(UserError, match="no plans are published for 'scene'; there are some for scenes, sdxl-turbo"):
        plan_file("scene@12%")
    with pytest.raises(UserError, match="is not an amount"):
        plan_file("scenes@much")


def test_turbo_plans_are_addressed_as_diffusers_does() -> None:
    with torch.device("meta"):
        config = json.loads((HERE / "benchmarks/published/sdxl-base-unet.json").read_text())
        parts = {"unet": UNet2DConditionModel.from_config(config)}
    graph = survey(parts, find_layers(parts))
    files = published("sdxl-turbo")
    assert len(files) == 4
    for limit, path in files.items():
        plan = load_plan(path)
        check_layers(plan, list(graph.by_address))
        check_architecture(plan, architecture_fingerprint(graph))
        assert set(plan.schemes.values()) <= {"w2za16", "w4za16", "w8za16", "keep"}
        size = {"keep": 16, "w2za16": 2, "w4za16": 4, "w8za16": 8}
        bits = sum(size[plan.schemes[layer.address]] * math.prod(layer.weight) for layer in graph.layers)
        assert plan.predictions["total"]["bytes"] == bits // 8 <= limit


def test_the_tables_in_the_document_are_the_results() -> None:
    found, text = json.loads(published_plans.RESULTS.read_text()), published_plans.DOCS.read_text()
    assert put(text, "scenes", scenes_table(found["scenes"]["rows"])) == text
    assert put(text, "sdxl-turbo", turbo_table(found["sdxl-turbo"])) == text
