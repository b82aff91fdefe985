"""A sweep paints the pictures of `apply`, keeps them over kills, and never mixes those of another sweep."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.views.painting import bisection_order, order, save_pictures
from bitplan.planner.views.view import Variant, View, read_view, spread_indices
from tests import tiny

ASKED: dict[str, Any] = {"points": 7, "start": "8%", "stop": "30%", "gap": 0.01}
PAINTED: dict[str, Any] = ASKED | {"images": 2, "paint": 3, "prompts": tiny.PROMPTS, "count": 2}
KILLED = """import os, signal
import bitplan, bitplan.planner.views.painting as painting
real, calls = painting.run_plan, []
def run_plan(*args):
    calls.append(args)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
painting.run_plan = run_plan
bitplan.sweep({profile!r}, {out!r}, **{asked!r})
"""


def everything(view: View) -> tuple[Variant, ...]:
    return (view.full, *view.points, *view.uniform)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def run(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, View]:
    """A painted sweep."""
    out = tmp_path_factory.mktemp("sweep") / "run"
    return out, bitplan.sweep(finished, out, **PAINTED)


@pytest.fixture
def copy(run: tuple[Path, View], tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(run[0], tmp_path / "run"))


def test_ends_come_first_then_ever_finer() -> None:
    assert bisection_order(9) == [0, 8, 4, 2, 6, 1, 3, 5, 7]
    assert [bisection_order(count) for count in (0, 1, 2, 3)] == [[], [0], [0, 1], [0, 2, 1]]
    assert spread_indices(5, 9) == [0, 1, 2, 3, 4] and spread_indices(9, 3) == [0, 4, 8] and spread_indices(4, 1) == [0]


def test_each_plan_is_painted_once_and_only_between_the_ends(run: tuple[Path, View]) -> None:
    view = run[1]
    some = order(view, 3)
    every = order(view)
    assert len({one.picks for one in every}) == len(every)
    assert {one.picks for one in some} <= {one.picks for one in every}
    assert {view.points[0].picks, view.points[-1].picks} <= {one.picks for one in some[:2]}
    sizes = [point.totals["bytes"] for point in view.points]
    between = {one.name for one in view.uniform if min(sizes) <= one.totals["bytes"] <= max(sizes)}
    assert between and {one.name for one in every if one.status == "uniform"} == between
    twice = replace(view, points=(*view.points, replace(view.points[-1], name="again")))
    assert len(order(twice)) == len(every)
    assert view.full.picks not in [one.picks for one in order(replace(view, points=(view.full, *view.points)))]


def test_what_is_painted_is_told_everywhere(run: tuple[Path, View]) -> None:
    out, view = run
    assert read_view(out / "sweep.json") == view
    assert view.conditions == tiny.PROMPTS and view.about["measured on"] == 2
    painted = [one for one in everything(view) if one.measured is not None]
    assert {one.picks for one in painted} == {view.full.picks, *(one.picks for one in order(view, 3))}
    for one in painted:
        assert len(one.pictures) == 2 and all((out / name).is_file() for name in one.pictures)
        assert one.measured is not None and {"nsr", "dssim", "embed_drift"} <= one.measured.keys()
    assert view.full.measured is not None and set(view.full.measured.values()) == {(0.0, 0.0)}
    tight = view.points[-1].measured
    assert tight is not None and tight["nsr"][0] > 0
    assert "nsr, predicted / measured" in str(view)


def test_pictures_are_those_of_apply(run: tuple[Path, View], tiny_folder: Path, tmp_path: Path) -> None:
    out, view = run
    options: dict[str, Any] = {"seed": 1000, "steps": 2, "guidance": 2.0}
    for plan, one in ((out / str(view.points[-1].plan), view.points[-1]), (None, view.full)):
        files = bitplan.paint(plan, str(tiny_folder), tiny.PROMPTS, tmp_path / "p.png", **options)
        for file, name in zip(files, one.pictures, strict=True):
            assert (pixels(file) == pixels(out / name)).all()
    assert (pixels(out / view.full.pictures[0]) != pixels(out / view.points[-1].pictures[0])).any()


def test_losses_are_those_of_evaluate(
    run: tuple[Path, View], tiny_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    out, view = run
    point = view.points[-1]
    found = bitplan.evaluate(
        [out / str(point.plan)], str(tiny_folder), tmp_path, prompts=tiny.PROMPTS, blocks=False, clip=str(clip_folder),
        steps=2, guidance=2.0,
    )  # fmt: skip
    assert dict(point.measured or {}) == dict(found.results[1].losses)


def test_a_killed_sweep_goes_on(run: tuple[Path, View], finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = KILLED.format(profile=str(finished), out=str(out), asked=PAINTED)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    left = read_view(out / "sweep.json")
    done = [one for one in everything(left) if one.measured is not None]
    stamps = {name: (out / name).stat().st_mtime_ns for one in done for name in one.pictures}
    assert len({one.picks for one in done}) == 2  # full precision, and what came before the kill
    assert bitplan.sweep(finished, out, **PAINTED) == run[1]
    assert {name: (out / name).stat().st_mtime_ns for name in stamps} == stamps


def test_a_finished_one_has_nothing_to_do(run: tuple[Path, View], finished: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "bitplan.planner.views.painting.open_evaluator", lambda *_: pytest.fail("the pipeline was loaded")
    )
    assert bitplan.sweep(finished, run[0], **PAINTED) == run[1]
    assert bitplan.sweep(finished, run[0], **ASKED) == run[1]


def test_a_lost_picture_is_painted_again(run: tuple[Path, View], copy: Path, finished: Path) -> None:
    lost, kept = (copy / run[1].points[place].pictures[0] for place in (-1, 0))
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    assert bitplan.sweep(finished, copy, **PAINTED) == run[1]
    assert (pixels(lost) == pixels(run[0] / lost.relative_to(copy))).all() and kept.stat().st_mtime_ns == stamp


def test_more_points_are_added(copy: Path, finished: Path) -> None:
    before = read_view(copy / "sweep.json")
    after = bitplan.sweep(finished, copy, **PAINTED | {"paint": 4})
    counts = [sum(one.measured is not None for one in view.points) for view in (before, after)]
    assert counts[0] < counts[1]
    for old, new in zip(before.points, after.points, strict=True):
        assert old.measured is None or (old.measured, old.pictures) == (new.measured, new.pictures)


def test_a_truncated_file_is_made_anew(run: tuple[Path, View], copy: Path, finished: Path) -> None:
    path = copy / "sweep.json"
    path.write_bytes(path.read_bytes()[:-200])
    (copy / run[1].full.pictures[0]).unlink()
    assert bitplan.sweep(finished, copy, **PAINTED) == run[1]
    assert (copy / run[1].full.pictures[0]).is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": tiny.PROMPTS[:1] * 2}, "of other conditions"), ({"seed": 1}, "of other seed"),
        ({"images": 1}, "of other images"), ({"points": 6}, "another sweep, of another points"),
        ({"objective": "quality"}, "of another objective"), ({"kernels": "fake"}, "of another kernels"),
    ],
)  # fmt: skip
def test_nothing_is_mixed_with_what_was_asked_otherwise(
    copy: Path, finished: Path, change: dict[str, Any], said: str
) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"{said}.*choose another --out"):
        bitplan.sweep(finished, copy, **PAINTED | change)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_nothing_is_mixed_with_a_changed_profile(copy: Path, profile: Path) -> None:
    with sqlite3.connect(profile) as db:
        db.execute("UPDATE measurements SET mean = mean * 2 WHERE metric = 'nsr'")
    before = (copy / "sweep.json").read_bytes()
    with pytest.raises(UserError, match="another sweep, of another profile; choose another --out"):
        bitplan.sweep(profile, copy, **PAINTED)
    assert (copy / "sweep.json").read_bytes() == before


def test_another_model_is_refused(finished: Path, tmp_path: Path) -> None:
    other = tiny.save_pipeline(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="fingerprint"):
        bitplan.sweep(finished, tmp_path / "run", pipeline=str(other), **PAINTED)


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [("images", (2, 3, 40, 50), (50, 40)), ("images", (2, 3, 600, 900), (384, 256)),
     ("video", (2, 5, 3, 16, 16), (16, 16)), ("audio", (2, 1, 64), None), ("array", (2, 1, 7), None)],
)  # fmt: skip
def test_pictures_of_what_can_be_seen(
    kind: str, shape: tuple[int, ...], size: tuple[int, int] | None, tmp_path: Path
) -> None:
    outputs = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    names = save_pictures(tmp_path, "full precision", outputs, kind)
    assert names == (() if size is None else ("images/full-precision/0.webp", "images/full-precision/1.webp"))
    for name, output in zip(names, outputs, strict=False):
        assert Image.open(tmp_path / name).size == size
        if max(shape[-2:]) <= 50:
            seen = output[2] if kind == "video" else output
            assert (pixels(tmp_path / name) == (seen * 255).round().byte().permute(1, 2, 0).numpy()).all()


def test_the_command_paints(finished: Path, tmp_path: Path, command_line: Any) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(tiny.PROMPTS))
    done = command_line("sweep", finished, "--out", tmp_path / "run", "--from", "8%", "--to", "9%", "--points", 2,
                   "--images", 1, "--count", 2, "--prompts", prompts, "--threads", 1)  # fmt: skip
    assert done.exit_code == 0, done.output
    view = json.loads((tmp_path / "run/sweep.json").read_text())
    assert len(view["points"][0]["pictures"]) == 1 and "predicted / measured" in done.output
