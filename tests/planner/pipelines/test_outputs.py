"""Outputs as files of their kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.outputs import check_output, save_outputs
from bitplan.planner.pipelines.subject import run_subject
from tests.planner.pipelines.toy_subjects import made, profiled


def test_each_kind_has_its_file(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 8, 6)
    assert save_outputs(images, "images", tmp_path / "a.png") == [tmp_path / "a-1.png", tmp_path / "a-2.png"]
    with Image.open(tmp_path / "a-2.png") as picture:
        assert picture.size == (6, 8)
    video = torch.linspace(0, 1, 4)[None, :, None, None, None].expand(1, 4, 3, 8, 6)
    assert save_outputs(video, "video", tmp_path / "v.gif") == [tmp_path / "v.gif"]
    with Image.open(tmp_path / "v.gif") as moving:
        assert getattr(moving, "n_frames", 1) == 4
    sound = torch.randn(1, 2, 50)
    assert save_outputs(sound, "audio", tmp_path / "s.png") == [tmp_path / "s.npy"]  # rather elsewhere than lost
    assert np.array_equal(np.load(tmp_path / "s.npy"), sound[0].numpy())
    assert save_outputs(images[:1], "images", tmp_path / "i.npy") == [tmp_path / "i.npy"]


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_what_cannot_be_written_is_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="end --out in .png"):
        check_output(tmp_path / name)


def test_a_subject_of_ones_own_is_painted(tmp_path: Path) -> None:
    plan = bitplan.solve(profiled(made(), tmp_path / "t.profile"), tmp_path / "p.plan.yaml", uniform="w8a8")
    subject = made()
    (path,) = bitplan.paint(plan, subject, [], tmp_path / "o.npy", seed=3)
    painted = np.load(path)
    assert np.array_equal(painted, run_subject(subject, subject.conditions[:1], 3)[0].numpy())
    bitplan.restore(subject)
    full = run_subject(subject, subject.conditions[:1], 3)[0].numpy()
    assert not np.array_equal(painted, full) and np.allclose(painted, full, atol=0.5)
