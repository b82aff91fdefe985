"""A denoiser call is timed as a user makes it, for one picture with its guidance, before it is timed for many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import bitplan
from bitplan.planner.evaluation.evaluator import EvaluatorOptions, open_evaluator
from bitplan.planner.evaluation.report import summary
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.speeds import ONE, TIMED
from bitplan.plans.plan import load_plan
from tests import tiny

ROWS = 2  # of one condition, with guidance


@pytest.fixture
def plan(finished: Path, tmp_path: Path) -> Path:
    bitplan.solve(finished, tmp_path / "p.plan.yaml", memory="50%")
    return tmp_path / "p.plan.yaml"


def rows_of(module: nn.Module, calls: dict[int, object]) -> dict[int, int]:
    """Number of conditions -> rows of the denoiser's input in the call that is timed for them."""
    seen: list[int] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["sample"])), with_kwargs=True
    )
    with torch.no_grad():
        for call in calls.values():
            call()  # type: ignore[operator]
    handle.remove()
    return dict(zip(calls, seen, strict=True))


def test_one_condition_is_timed_first_then_those_that_run_together(
    plan: Path, tiny_folder: Path, clip_folder: Path
) -> None:
    generation = Generation(steps=2, guidance=2.0)
    for count, expected in ((3, {1: ROWS, 3: 3 * ROWS}), (1, {1: ROWS})):
        options = EvaluatorOptions(
            str(tiny_folder), generation, [*tiny.PROMPTS, "a cat"][:count], count, clip=str(clip_folder)
        )
        evaluator = open_evaluator(options, [load_plan(plan)])
        found = rows_of(evaluator.subject.modules["unet"], dict(evaluator.timed_calls))
        assert found == expected and list(found)[0] == 1


def test_reports_show_both(plan: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    found = bitplan.evaluate(
        [plan], str(tiny_folder), out, prompts=tiny.PROMPTS, steps=2, guidance=2.0, clip=str(clip_folder), blocks=False
    )
    report = json.loads((out / "report.json").read_text())
    full, planned = (result["denoiser_ms"] for result in report["results"])
    assert full == [] and [each["conditions"] for each in planned] == [1, 2]
    assert all(each["ratio"] == each["measured"] / each["full_precision"] for each in planned)
    for text in (str(found), summary(report)):
        assert text.index(", 1 at a time") < text.index(", 2 at a time")
    assert str(found.results[1]).count(" (full precision ") == 2


def test_costs_are_times_of_one_condition_with_guidance(finished: Path) -> None:
    with open_profile(finished) as store:
        calls = [call for facts in store.graph()["layers"] for call in facts["calls"]]
        assert store.baseline()[TIMED] == ONE
        convolutions = [call["input"] for call in calls if len(call["input"]) == 4]
    assert len(tiny.PROMPTS) > 1 and {shape[0] for shape in convolutions} == {ROWS}
