"""Timing a plan: every variant is named, called as often, and computes what it says."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models import modeling_utils
from torch import nn

import bitplan
from bitplan.planner.evaluation import layer_time
from bitplan.planner.evaluation import speed as benching
from bitplan.planner.evaluation.layer_time import predicted_share
from bitplan.planner.evaluation.speed import PLAN, TimedVariant, baseline, time_variants
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.pipelines.subject import subject_of
from bitplan.plans.plan import Plan, load_plan
from bitplan.sensitivity.runs.calls import RecordedCall
from tests import tiny


@pytest.fixture(scope="module")
def plan_file(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "p.plan.yaml"
    bitplan.solve(finished, out, memory="40%")
    return out


class Kept(ModelMixin, ConfigMixin):
    """A model of diffusers, which warns of a change of its type and in each call."""

    _keep_in_fp32_modules = ["net"]

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        modeling_utils.logger.warning("called")
        return self.net(x)


def test_diffusers_warns_of_nothing_that_is_timed() -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        model = Kept()
        model.to(torch.bfloat16)
        assert len(said) == 1 and "should be kept in float32" in said[0]  # the handler hears it
        slow = baseline("bfloat16", Kept(), RecordedCall((torch.ones(1, 2),), {}))
        assert [row.name for row in time_variants([slow], 1)] == ["bfloat16"]
        assert len(said) == 1
    finally:
        logger.removeHandler(handler)


class Counting(nn.Module):
    def __init__(self, log: list[str], name: str) -> None:
        super().__init__()
        self.log, self.name = log, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log.append(self.name)
        return x


def variant(log: list[str], name: str) -> TimedVariant:
    return TimedVariant(name, Counting(log, name), RecordedCall((torch.ones(1),), {}), baseline=name != PLAN)


def test_variants_are_called_in_turn() -> None:
    log: list[str] = []
    rows = time_variants([variant(log, "float32"), variant(log, PLAN)], 3)
    assert log == ["float32", PLAN] * 4
    assert [row.name for row in rows] == ["float32", PLAN]
    assert rows[0].times == {"float32": 1.0} and rows[1].times.keys() == {"float32"}


def test_ratios_are_medians_of_calls_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 9.0, 2.0, 1.0, 30.0, 10.0, 4.0, 4.0])  # the first pair warms up
    monkeypatch.setattr(benching.Runner, "__call__", lambda self: next(seconds))
    full, plan = time_variants([variant([], "float32"), variant([], PLAN)], 3)
    assert (full.ms, plan.ms, plan.times["float32"]) == (4000.0, 4000.0, 2.0)


class Spending(nn.Module):
    """Uses its list up, writes into its tensor, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, int]] = []

    def forward(self, x: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        self.seen.append((float(x), len(skips)))
        return x.add_(skips.pop())


def test_a_repeated_call_gets_what_was_recorded() -> None:
    module, call = Spending(), RecordedCall((torch.ones(1),), {"skips": [torch.ones(1)]})
    time_variants([TimedVariant(PLAN, module, call, baseline=True)], 2)
    assert module.seen == [(1.0, 1)] * 3


def test_a_baseline_is_a_copy_in_its_own_type() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    call = RecordedCall((torch.randn(1, 3, 5, 5),), {"steps": [torch.tensor(3), torch.ones(2)]})
    made = baseline("bfloat16", model, call)
    assert made.module[0].weight.dtype == made.call.args[0].dtype == torch.bfloat16
    assert made.call.kwargs["steps"][0].dtype == torch.int64 and made.call.kwargs["steps"][1].dtype == torch.bfloat16
    assert made.module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.dtype == torch.float32 and model[0].weight.is_contiguous()


def test_the_story(plan_file: Path, tiny_folder: Path, tmp_path: Path) -> None:
    found = bitplan.bench(
        plan_file, str(tiny_folder), out=tmp_path / "b.json", pairs=1, against=("float32", "bfloat16")
    )
    assert [(row.name, row.compiled) for row in found.rows] == [("float32", False), ("bfloat16", False), (PLAN, False)]
    assert all(row.ms > 0 and set(row.times) == {"float32", "bfloat16"} for row in found.rows)
    assert found.rows[1].bytes * 2 == found.rows[0].bytes > found.rows[2].bytes
    assert json.loads((tmp_path / "b.json").read_text())["rows"][2]["name"] == PLAN
    written = json.loads((tmp_path / "b.json").read_text())
    assert ("planned_layers" in written) == (found.layers is not None)
    assert "| plan " in str(found) and "times as fast as bfloat16" in str(found)


def test_planned_layers_are_timed_alone(plan_file: Path, tiny_folder: Path, tmp_path: Path) -> None:
    found = bitplan.bench(plan_file, str(tiny_folder), out=tmp_path / "b.json", pairs=1, against=("float32",),
                          guidance=tiny.SETTINGS["guidance"])  # fmt: skip
    layers, full = found.layers, found.rows[0]
    assert layers is not None and layers.against == "float32" and layers.measured == layers.ms / layers.full_ms
    assert layers.full_ms > 0 and full.ms > 0
    said = load_plan(plan_file).predictions
    kept = sum(sums["ms"] for sums in said["full"].values())
    assert layers.predicted == pytest.approx(said["total"]["ms"] / kept)
    assert json.loads((tmp_path / "b.json").read_text())["planned_layers"]["predicted"] == layers.predicted
    assert f"over float32: {layers.predicted:.2f} predicted, {layers.measured:.2f} measured" in str(found)


def test_a_prediction_of_something_else_is_not_told(plan_file: Path) -> None:
    plan, model = load_plan(plan_file), nn.Sequential(nn.Linear(2, 2))
    variants = [
        TimedVariant("bfloat16", model, RecordedCall((), {}), baseline=True),
        TimedVariant(PLAN, model, RecordedCall((), {})),
    ]
    for other, generation in (
        (plan, (1, 2.0)),  # float32 is not timed
        (replace(plan, model={**plan.model, "dtype": "bfloat16"}), (2, 2.0)),
        (replace(plan, model={**plan.model, "dtype": "bfloat16"}), (1, None)),
        (replace(plan, predictions={}), (1, 2.0)),
        (replace(plan, predictions={"blocks": plan.predictions["blocks"]}), (1, 2.0)),
    ):
        assert benching.time_planned_layers("unet", other, variants, 1, generation) is None


def test_only_the_component_counts() -> None:
    sums = {"blocks": {"unet.a": {"ms": 2.0}, "text_encoder.a": {"ms": 9.0}, "unet.b": {"ms": 1.0}},
            "full": {"unet.a": {"ms": 4.0}, "text_encoder.a": {"ms": 9.0}, "unet.b": {"ms": 2.0}}}  # fmt: skip
    plan = Plan({}, {"unet.a.x": "keep"}, predictions=sums)
    assert predicted_share(plan, "unet") == 0.5 and predicted_share(plan, "vae") is None
    sums["full"]["unet.b"] = {}
    assert predicted_share(plan, "unet") is None


def test_the_clock_runs_in_the_layers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()  # each look at the clock takes a second
    monkeypatch.setattr(layer_time.time, "perf_counter", lambda: float(next(now)))
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    runs = [(model, lambda: model(torch.ones(1, 2)))] * 2
    assert layer_time.time_layers(["0", "2"], runs, 3) == [[2.0] * 3] * 2
    assert layer_time.time_layers(["0"], runs, 1) == [[1.0]] * 2
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model)


def test_the_plan_that_is_timed_is_the_plan(plan_file: Path, tiny_folder: Path) -> None:
    pipe, plan = load_pipeline(str(tiny_folder)), load_plan(plan_file)
    call = benching.record_call(subject_of(pipe, Generation(1)), pipe.unet, ["a cat"])
    *_, mine = benching.variants_of(("unet", pipe.unet), plan, call, ("float32",), False)
    full = mine.call
    before = pipe.unet(*full.args, **full.kwargs)[0]
    planned = bitplan.apply(pipe, plan).unet(*full.args, **full.kwargs)[0]
    assert torch.equal(mine.module(*full.args, **full.kwargs)[0], planned)
    assert not torch.equal(before, planned)
