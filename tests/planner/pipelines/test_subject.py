"""Pipelines of one's own: modules, a way to run them, a way to compare; profiled, solved and applied like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bitplan
from bitplan.planner.choice.joint import predict_plan
from bitplan.planner.errors import UserError
from bitplan.planner.graph.stages import watched_stages
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.references import Name, typed
from bitplan.planner.pipelines.sources import load_subject
from bitplan.planner.pipelines.subject import Subject, conditions_of, output_of, run_subject
from bitplan.planner.pipelines.traced import examine
from bitplan.planner.pipelines.weights import Weights
from bitplan.planner.profiles.profile import open_profile
from tests.planner.pipelines.toy_subjects import STEPS, made, profiled, run_with

torch.set_num_threads(1)


def module_file(folder: Path) -> None:
    (folder / "own_subject.py").write_text(
        "from tests.planner.pipelines.toy_subjects import made\nvalue = 3\n\n"
        "def broken():\n    raise RuntimeError('no disk')\n",
        "utf-8",
    )


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return Name("own_subject:made")


def test_stages_are_what_is_called_as_a_whole() -> None:
    subject = made()
    with watched_stages(subject.modules) as calls:
        run_subject(subject, subject.conditions[:2], 0)
    assert calls == {"reader": 1, "denoiser": STEPS, "codec.grow": 1, "codec.out": 1}
    assert not any(m._forward_hooks or m._forward_pre_hooks for x in subject.modules.values() for m in x.modules())


def test_what_runs_at_every_step_is_planned_by_default() -> None:
    traced = examine(made(), made().conditions)
    assert list(traced.parts) == ["denoiser"] and traced.denoisers == ("denoiser",) == traced.stages
    assert {layer.address for layer in traced.graph.layers} == {f"denoiser.{x}" for x in ("first", "known", "last")}
    every = examine(made(), made().conditions, names=("reader", "denoiser", "codec"))
    assert every.stages == ("reader", "denoiser", "codec.grow", "codec.out") and every.denoisers == ("denoiser",)
    assert every.output == "array"


def test_outputs_do_not_depend_on_the_batch() -> None:
    subject = made()
    at_once, by_two = (run_subject(subject, subject.conditions, 7, batch) for batch in (None, 2))
    torch.testing.assert_close(at_once, by_two)


@pytest.mark.parametrize("frames", [1, 3])
def test_probes_reach_encoders_and_decoders(frames: int, tmp_path: Path) -> None:
    """Every layer before, in and after the sampler: estimates are near what is measured by itself."""
    probed = profiled(made(frames=frames), tmp_path / "p.profile", probes=400, checks=0)
    measured = profiled(made(frames=frames), tmp_path / "m.profile", method="exhaustive")
    with open_profile(probed) as some, open_profile(measured) as all_:
        assert {m.source for m in some.measurements()} == {"probes"}
        estimates = {(m.layer, m.scheme, m.metric): m.mean for m in some.measurements()}
        truth = {(m.layer, m.scheme, m.metric): m.mean for m in all_.measurements()}
    assert estimates.keys() == truth.keys()
    compared = 0
    for (layer, scheme, metric), loss in truth.items():
        if scheme == "w8a8" and metric != "nsr":
            assert estimates[layer, scheme, metric] == pytest.approx(loss, rel=0.35), (layer, metric)
            compared += 1
        if metric == "nsr" and not layer.startswith("denoiser."):
            assert estimates[layer, scheme, metric] == loss == 0.0
    assert compared == 7


class Recurrent(nn.Module):
    """Adds what it saw before, which the caller keeps for it, as decoders of videos do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor, seen: list[Tensor | None]) -> Tensor:
        x = self.layer(x) if seen[0] is None else self.layer(x) + seen[0]
        seen[0] = x
        return x


def test_what_keeps_something_between_its_calls_is_measured_by_itself(tmp_path: Path) -> None:
    """Gradients pass it, so that all before it is probed."""
    whole = made()
    recurrent = Recurrent()

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        seen: list[Tensor | None] = [None]
        halves = whole.run(conditions, seed).split(4, 1)
        return torch.cat([recurrent(half[:, [0, 1, 2, 3, 0, 1]], seen) for half in halves], 1)

    modules = {**whole.modules, "recurrent": recurrent}
    subject = Subject(modules, run, whole.conditions, "array", name="toy")
    assert "recurrent" not in examine(subject, subject.conditions, names=("denoiser", "recurrent")).stages
    out = profiled(subject, tmp_path / "p.profile", components=("reader", "denoiser", "codec", "recurrent"))
    with open_profile(out) as store:
        sources = {m.layer: m.source for m in store.measurements()}
    assert sources.pop("recurrent.layer") == "exhaustive" and set(sources.values()) == {"probes"} and len(sources) == 7


def test_the_story_of_a_subject(tmp_path: Path, named: str) -> None:
    """By name: profile, solve, predict, apply, restore, evaluate."""
    profile = profiled(named, tmp_path / "t.profile")
    plan = bitplan.solve(profile, tmp_path / "p.plan.yaml", memory="40%")
    assert plan.model["name"] == named and set(plan.model["components"]) == {"reader", "denoiser", "codec"}
    with open_profile(profile) as store:
        assert predict_plan(plan, store)
    subject = made()
    before = run_subject(subject, subject.conditions, 0)
    assert bitplan.apply(subject, plan) is subject
    during = run_subject(subject, subject.conditions, 0)
    assert not torch.equal(before, during) and torch.allclose(before, during, atol=1.0)
    with pytest.raises(UserError, match="has a plan applied already"):
        bitplan.apply(subject, plan)
    bitplan.restore(subject)
    assert torch.equal(run_subject(subject, subject.conditions, 0), before)
    found = bitplan.evaluate([tmp_path / "p.plan.yaml"], named, tmp_path / "report", count=5)
    assert found.results[1].bytes == plan.predictions["total"]["bytes"]
    assert (tmp_path / "report" / "report.md").is_file() and not (tmp_path / "report" / "images.png").exists()


def test_a_profile_of_other_conditions_is_another_profile(tmp_path: Path) -> None:
    from bitplan.planner.profiles.file import ProfileError

    out = profiled(made(), tmp_path / "t.profile", schemes=("w8a8",))
    again = made()
    changed = Subject(again.modules, again.run, [c + 1 for c in again.conditions], "array", name="toy")
    with pytest.raises(ProfileError):
        profiled(changed, out, schemes=("w8a8",))


@pytest.mark.parametrize(
    "out", [None, [1, 2], torch.zeros(3, 2), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(1.0)]
)
def test_what_is_no_output_a_condition_is_refused(out: Any) -> None:
    with pytest.raises(UserError, match="for 2 conditions; return floats, one row each"):
        run_subject(run_with(out), [1, 2], 0)


def test_the_kind_of_output_is_told_by_its_shape() -> None:
    shapes = {"images": (1, 3, 8, 8), "video": (1, 2, 3, 8, 8), "audio": (1, 2, 100), "array": (1, 7)}
    for kind, shape in shapes.items():
        assert output_of(run_with(None), torch.zeros(shape)) == kind
    odd = Subject({"m": nn.Linear(2, 2)}, lambda *_: torch.zeros(1, 4, 8, 8), output="images")
    with pytest.raises(UserError, match=r"returned \(1, 4, 8, 8\) for images, which are \(P, 3, H, W\)"):
        output_of(odd, torch.zeros(1, 4, 8, 8))


def test_bad_subjects_are_refused(named: str) -> None:
    with pytest.raises(UserError, match="map names to nn.Modules"):
        Subject({}, lambda *_: None)
    with pytest.raises(UserError, match="map names to nn.Modules"):
        Subject({"a.b": nn.Linear(1, 1)}, lambda *_: None)
    with pytest.raises(UserError, match="output of .* is 'sound'; choose images, video, audio, array"):
        Subject({"m": nn.Linear(1, 1)}, lambda *_: None, output="sound")
    with pytest.raises(UserError, match="fails with RuntimeError: no disk"):
        load_subject(typed("own_subject:broken"), Generation())
    with pytest.raises(UserError, match="fails with TypeError|is a int"):
        load_subject(typed("own_subject:value"), Generation())
    with pytest.raises(UserError, match="determines how it runs"):
        load_subject(named, Generation(steps=3))
    with pytest.raises(UserError, match="leave --dtype of `bitplan profile` out"):
        load_subject(named, Generation(), Weights("bfloat16"))
    with pytest.raises(UserError, match="leave --prompts out"):
        conditions_of(made(), ["a"], 1)
    with pytest.raises(UserError, match="no conditions to run on"):
        conditions_of(Subject({"m": nn.Linear(1, 1)}, lambda *_: None), None, 3)
