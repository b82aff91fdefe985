"""A solve shows nothing where it is quick, and that it goes on where it is long."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bitplan.planner import progress
from bitplan.planner.verbs.checks import effort_of


@pytest.mark.parametrize("seconds", [1.0, 30.0])
def test_a_long_solve_shows_its_time(
    seconds: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    effort = effort_of(60.0, 0.0, None)
    with progress.course_of("solve", patient=True) as course, course.phase("searching", 5, "plans"):
        course.advance()
        clock[0] = seconds
        assert not effort.stopped()  # which a backend asks again and again
    shown = capsys.readouterr().err
    assert ("solve: searching 1/5 plans:" in shown and shown.endswith("\n")) if seconds > 10 else shown == ""


def test_one_that_no_verb_runs_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert not effort_of(60.0, 0.0, None).stopped() and capsys.readouterr().err == ""
