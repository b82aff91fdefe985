"""A solve that a newer request of the same page replaces is told to stop, wherever it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bitplan.planner.choice.request import Request
from bitplan.planner.page import session as sessions
from bitplan.planner.page.lane import Lane, OutdatedError, outdated
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.views.profile_view import load_profile_view
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.solution import Solution, Status


def test_a_running_solve_is_told_to_stop_by_the_next_request_of_its_page(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_profile(finished) as store:
        session = sessions.Session(load_profile_view(store), real=False)
    lane, begun, results = Lane(), threading.Event(), []

    def searching(problem: Problem, effort: Effort) -> Solution:
        """A search that ends only when it is told to."""
        begun.set()
        while not effort.stopped():
            threading.Event().wait(0.001)
        return Solution(Status.INTERRUPTED, None, 0.0, "it was told to stop", 0.0, "none")

    monkeypatch.setattr(sessions, "solve", searching)

    def work(still: Callable[[], None]) -> Any:
        sessions.answer(session, Request("50%", kernels="fake"), False, partial(outdated, still))
        still()

    def first() -> None:
        try:
            lane.run("a", work)
        except OutdatedError as error:
            results.append(error)

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    assert begun.wait(30)
    assert lane.run("a", lambda still: outdated(still)) is False
    thread.join(30)
    assert len(results) == 1


def test_another_page_stops_nothing() -> None:
    lane, seen = Lane(), []

    def work(still: Callable[[], None]) -> None:
        thread = threading.Thread(target=lane.run, args=("b", lambda _: None), daemon=True)
        thread.start()
        while "b" not in lane._newest:
            threading.Event().wait(0.001)
        seen.append(outdated(still))

    lane.run("a", work)
    assert seen == [False]
