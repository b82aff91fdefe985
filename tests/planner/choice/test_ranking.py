"""Several plans for one request: they differ, get no better, hold, and are put in order by measuring."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.choice.ranking import rank, score, sibling
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import Plan, load_plan
from tests import tiny


def differ(a: Plan, b: Plan) -> int:
    return sum(a.schemes[layer] != b.schemes[layer] for layer in a.schemes)


@pytest.mark.parametrize("distance", [1, 4])
def test_candidates_differ_and_get_no_better(distance: int, finished: Path, tmp_path: Path, command_line: Any) -> None:
    out = tmp_path / "p.plan.yaml"
    result = command_line("solve", finished, "--memory", "14%", "--candidates", 4, "--distance", distance, "--out", out)
    assert result.exit_code == 0, result.stderr
    paths = [tmp_path / f"p.{i}.plan.yaml" for i in (1, 2, 3, 4)]
    assert {path.name for path in tmp_path.glob("*.yaml")} == {out.name, *(path.name for path in paths)}
    plans = [load_plan(path) for path in paths]
    assert load_plan(out) == plans[0] == bitplan.solve(finished, tmp_path / "one.yaml", memory="14%")
    objectives = [plan.solver["objective"] for plan in plans]
    assert objectives == sorted(objectives)
    assert all(differ(a, b) >= distance for a, b in combinations(plans, 2))
    for path in paths:
        assert bitplan.verify(path, finished).failures == ()


def test_fewer_where_there_are_no_more(finished: Path, tmp_path: Path) -> None:
    with open_profile(finished) as store:
        free, *rest = store.layers()
        offered = {cost.scheme for cost in store.costs() if cost.layer == free and not cost.simulated}
    bitplan.solve(finished, tmp_path / "p.yaml", pins=dict.fromkeys(rest, "keep"), candidates=9)
    assert len(list(tmp_path.glob("p.*.yaml"))) == len(offered) < 9


def test_names_of_siblings() -> None:
    assert sibling(Path("a/P.plan.yaml"), 3) == Path("a/P.3.plan.yaml")
    assert sibling(Path("P.yaml"), 1) == Path("P.1.yaml")
    assert sibling(Path("P"), 1) == Path("P.1")


def test_measured_losses_count_in_the_units_of_the_profile(finished: Path, tmp_path: Path) -> None:
    """What a plan predicts, told as if measured, scores the plan's own objective."""
    plan = bitplan.solve(finished, tmp_path / "p.yaml", memory="12%", objective="quality=2,alignment=1,nsr=3,ms=0.01")
    with open_profile(finished) as store:
        evidence = read_evidence(store)
    told = {metric: (plan.predictions["total"][metric], 0.0) for metric in evidence.metrics}
    assert score(plan, told, evidence) == pytest.approx(plan.solver["objective"])


def test_the_best_measured_is_taken(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.plan.yaml"
    bitplan.solve(finished, out, memory="14%", candidates=3)
    plans = [load_plan(tmp_path / f"p.{i}.plan.yaml") for i in (1, 2, 3)]
    nsr = iter([0.3, 0.1, 0.2])
    with open_profile(finished) as store:
        evidence = read_evidence(store)
    best = rank(plans, out, evidence, lambda _: {"nsr": (next(nsr), 0.01)} | dict.fromkeys(("clip_drop",), (0.0, 0.0)))
    assert best == plans[1] == load_plan(out)
    ranking = json.loads((tmp_path / "p.ranking.json").read_text())["ranking"]
    assert [row["plan"] for row in ranking] == [f"p.{i}.plan.yaml" for i in (2, 3, 1)]
    measured = [row["measured"] for row in ranking]
    assert measured == sorted(measured)


def test_candidates_are_measured_end_to_end(
    finished: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path, command_line: Any
) -> None:
    out, prompts = tmp_path / "p.plan.yaml", tmp_path / "prompts.txt"
    prompts.write_text("\n".join(tiny.PROMPTS))
    result = command_line("solve", finished, "--memory", "14%", "--candidates", 2, "--distance", 6, "--out", out,
                     "--rerank", tiny_folder, "--prompts", prompts, "--clip", clip_folder)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    ranking = json.loads((tmp_path / "p.ranking.json").read_text())["ranking"]
    assert {row["plan"] for row in ranking} == {"p.1.plan.yaml", "p.2.plan.yaml"}
    assert load_plan(out) == load_plan(tmp_path / ranking[0]["plan"])
    assert ranking[0]["measured"] <= ranking[1]["measured"]
    for row in ranking:
        assert row["losses"]["nsr"][0] > 0
        assert row["predicted"] == load_plan(tmp_path / row["plan"]).solver["objective"]
    assert ranking[0]["losses"]["nsr"] != ranking[1]["losses"]["nsr"]


def test_reranking_refuses_another_model(finished: Path, clip_folder: Path, tmp_path: Path, command_line: Any) -> None:
    other = tiny.save_pipeline(tmp_path / "other", seed=1)
    result = command_line("solve", finished, "--memory", "14%", "--candidates", 2, "--out", tmp_path / "p.yaml",
                     "--rerank", other, "--clip", clip_folder)  # fmt: skip
    assert result.exit_code == 2
    assert "fingerprint" in result.stderr


def test_a_machine_without_torch_asks_all_but_for_measuring(finished: Path, tmp_path: Path) -> None:
    plan, out = str(tmp_path / "p.plan.yaml"), str(tmp_path / "run")
    code = f"""import sys
sys.modules |= dict.fromkeys(("torch", "diffusers", "transformers"))
from bitplan.planner.cli import main
for command in (["solve", {str(finished)!r}, "--memory", "14%", "--candidates", "2", "--worth", "--out", {plan!r}],
                ["verify", {plan!r}, {str(finished)!r}], ["why", {plan!r}, {str(finished)!r}, "unet.conv_in"],
                ["sweep", {str(finished)!r}, "--from", "10%", "--to", "20%", "--points", "2", "--out", {out!r}]):
    main(command, standalone_mode=False)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
