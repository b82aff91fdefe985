"""What judges a subject: a CLIP is asked for where somebody wants one, and where it is not there that is one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.metrics import choose_metrics
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.profile import open_profile

torch.set_num_threads(1)
SIDE = 16


def painter() -> Subject:
    """Pictures from vectors, in two steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    out = nn.Sequential(nn.Linear(4, 3 * SIDE * SIDE))

    def run(conditions: Sequence[Any], seed: int) -> Tensor:
        x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(seed + i)) for i in
                         range(len(conditions))])  # fmt: skip
        for _ in range(2):
            x = x + 0.5 * net(x)
        return torch.sigmoid(out(x)).unflatten(1, (3, SIDE, SIDE))

    return Subject({"net": net, "out": out}, run, [1, 2, 3], "images", name="painter")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("there is no net")

    monkeypatch.setattr("bitplan.planner.pipelines.encoder.CLIPModel.from_pretrained", refuse)


@pytest.mark.usefixtures("offline")
def test_pictures_of_no_texts_are_profiled_without_a_clip(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The profile says what it has, the command what it has not."""
    out = bitplan.profile(painter(), tmp_path / "p.profile", schemes=("w8a8",), count=2, checks=0)
    with open_profile(out) as store:
        assert {m.metric for m in store.measurements()} == {"nsr", "dssim"}
    said = [line for line in capfd.readouterr().err.splitlines() if "CLIP" in line]
    assert said == [
        "embed_drift left out: no condition is a text and no CLIP is named; name one with --clip to have the drift of "
        "images measured"
    ]
    plan = bitplan.solve(out, tmp_path / "p.plan.yaml", memory="60%")
    assert set(plan.schemes) == {"net.0", "net.1"}


def test_a_clip_that_is_named_is_used(clip_folder: Path) -> None:
    judge = choose_metrics(painter(), "images", [1, 2], clip=str(clip_folder))
    assert [metric.name for metric in judge.metrics] == ["nsr", "dssim", "embed_drift"]
    assert judge.encoder is not None and judge.left_out == ()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("asked", ["texts", "own", "said"])
def test_one_that_is_asked_for_and_not_there_is_one_line(asked: str) -> None:
    """By a prompt, by --metric, by the subject."""
    subject = replace(painter(), metrics=("embed_drift",)) if asked == "said" else painter()
    conditions = ["a dog", "a cat"] if asked == "texts" else [1, 2]
    with pytest.raises(UserError, match="cannot load the CLIP .* no net; give --clip a folder or hub id, or use"):
        choose_metrics(subject, "images", conditions, ("embed_drift",) if asked == "own" else ())


def test_a_subject_that_says_its_metrics_leaves_none_out() -> None:
    judge = choose_metrics(replace(painter(), metrics=("dssim",)), "images", [1, 2])
    assert [metric.name for metric in judge.metrics] == ["dssim"] and judge.left_out == () and judge.encoder is None
