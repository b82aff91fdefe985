"""What people read in a file or a pipe: the map has one width, and no line begins with an empty name."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import bitplan
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.responses import PROBED
from bitplan.planner.progress import course_of


def test_the_map_in_a_file_does_not_depend_on_another_terminal(tmp_path: Path) -> None:
    """Of 30 columns, on standard error and standard input, where the output goes to a file."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    command, environment = [sys.executable, "-m", "bitplan", "inspect", "scenes@12%"], dict(os.environ)
    environment.pop("COLUMNS", None)
    texts = []
    for stream in (theirs, subprocess.DEVNULL):
        with (tmp_path / "map.txt").open("wb") as file:
            subprocess.run(command, stdin=stream, stderr=stream, stdout=file, env=environment, check=True)
        texts.append((tmp_path / "map.txt").read_text())
    os.close(ours)
    os.close(theirs)
    assert texts[0] == texts[1] and all(c.isprintable() for c in texts[0].replace("\n", ""))
    drawing = texts[0].partition("priced by")[2].splitlines()[1:]
    assert 40 < max(map(len, drawing)) <= 80


def test_a_run_without_a_phase_has_no_empty_description(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("bitplan.planner.progress._SELDOM", 0.0)
    with course_of("profile") as course:
        course.tick()
        with course.phase("tracing"):
            course.tick()
    said = capsys.readouterr().err
    assert "profile: 0" in said and "profile: tracing" in said and ": :" not in said


def test_the_prompts_of_an_interrupted_profile_are_those_of_its_finished_rounds(finished: Path, tmp_path: Path) -> None:
    """As the continuing command counts them."""
    begun = tmp_path / "begun.profile"
    begun.write_bytes(finished.read_bytes())
    with open_profile(begun, "a") as store:
        prompts = len(store.header()["settings"]["prompts"])
        store.write_baseline({PROBED: store.baseline()[PROBED] | {"prompts": prompts - 1}})
    assert f" on {prompts} prompts" in str(bitplan.inspect(finished))
    found = bitplan.inspect(begun)
    assert f" on {prompts - 1} of {prompts} prompts" in str(found)
    assert found.to_json()["measured"]["prompts"] == prompts - 1
