"""docs/tutorial.md works as it stands there: every command and every block of code, in order, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planner import timing
from tests.docs.executed import ROOT, differences, run, steps_of

PAGE = ROOT / "docs/tutorial.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


@pytest.mark.timeout(600)
def test_it_runs_and_prints_what_it_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(timing, "_BUDGET", 0.0)  # milliseconds are not compared
    steps, names = steps_of(PAGE.read_text("utf-8")), {}
    assert len(steps) > 10 and not any(folder.iterdir())
    for step in steps:
        printed = run(step, names)
        assert not differences(step.shown, printed), step.code
    for name in re.findall(r"!\[.*?\]\(tutorial/(.*?)\)", PAGE.read_text("utf-8")):
        assert (folder / name).exists() and (ROOT / "docs/tutorial" / name).exists()


def test_outputs_that_differ_are_told() -> None:
    old = "layers 133\n| scheme   | ms    | nsr |\n|------|----|---|\n| w8a8     | 41.5 | 0.0020 |\ntook 3.1 s\n"
    assert not differences(old, old.replace("41.5", "7").replace("3.1 s", "60 s").replace("0.0020", "0.0021"))
    assert differences(old, old.replace("0.0020", "0.0040")) == ["0.0020 became 0.0040"]
    assert differences(old, old.replace("w8a8", "w4a8")) and differences(old, old.replace("took", "took about"))
    assert differences(old, old.replace("133", "100")) == ["133 became 100"]
