"""Profiling is killed with SIGKILL, continued, and ends with the measurements of an undisturbed run, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.profiles.profile import content_digest, open_profile
from tests import tiny
from tests.planner.support.killing import Run, finish, kills, progress

KILLS = 3


@pytest.fixture
def run(tiny_folder: Path, clip_folder: Path, tmp_path: Path) -> Run:
    (tmp_path / "prompts.txt").write_text("\n".join(tiny.PROMPTS))
    return Run(tiny_folder, clip_folder, tmp_path / "prompts.txt", tmp_path / "killed.profile")


def test_killed_runs_end_like_an_undisturbed_one(run: Run, tmp_path: Path) -> None:
    whole = tmp_path / "whole.profile"
    bitplan.profile(
        str(run.folder), whole, prompts=run.prompts, schemes=("w2ma8",), clip=str(run.clip), steps=2, timesteps=1,
        guidance=2.0, method="exhaustive",
    )  # fmt: skip
    moments = list(kills(run, progress(whole), KILLS, seed=0))
    assert len(moments) == KILLS
    for before, after in moments:
        assert after > before  # each run went on from where the last was killed, and none had finished
    with open_profile(whole) as store:
        assert finish(run) == content_digest(store)
    assert progress(run.out) == progress(whole)


def test_an_interrupted_run_says_that_it_can_go_on(
    run: Run, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitplan.planner.measurement import run as profiling

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(profiling, "measure_exhaustively", interrupted)
    result = command_line(*run.words)
    assert result.exit_code == 130
    assert "continues from there" in result.stderr
    assert progress(run.out) > 0
