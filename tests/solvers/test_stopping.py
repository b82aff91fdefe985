"""A search ends when it is told to, in Python and in each backend, and on Ctrl-C, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pytest

from bitplan.solvers.effort import Deadline, Effort
from bitplan.solvers.problem import Budget, Problem
from bitplan.solvers.programs.backends import BACKENDS
from bitplan.solvers.programs.backends.base import STOPPED, attended
from bitplan.solvers.questions.frontier import frontier
from bitplan.solvers.questions.infeasibility import explain
from bitplan.solvers.solution import Status
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies import strategy_named

HERE = [backend.name for backend in BACKENDS if backend.missing() is None]


class AfterCalls:
    """Says to stop from the given call on, and counts its calls."""

    def __init__(self, calls: int) -> None:
        self.calls, self.seen = calls, 0

    def __call__(self) -> bool:
        self.seen += 1
        return self.seen > self.calls


def hard(groups: int = 120, columns: int = 6) -> Problem:
    """A problem that no backend proves within minutes: many budgets that are all tight."""
    random = np.random.default_rng(0)
    size = groups * 8
    names = {f"c{i}": random.integers(1, 1000, size) for i in range(columns)}
    return Problem(
        tuple(f"g{i}" for i in range(groups)), tuple(tuple("abcdefgh") for _ in range(groups)),
        {**names, "loss": random.random(size)}, {"loss": 1.0},
        tuple(Budget(name, int(groups * 430)) for name in names),
    )  # fmt: skip


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("strategy", ["exact", "ilp"])
def test_a_search_ends_when_it_is_told_to(strategy: str, backend: str) -> None:
    told = AfterCalls(12)
    solution = strategy_named(strategy).run(hard(), Effort(3600.0, backend=backend, stopped=told))
    assert solution.status in (Status.FEASIBLE, Status.INTERRUPTED)
    assert told.seen > told.calls
    assert not _solvers()


@pytest.mark.parametrize("backend", HERE)
def test_a_backend_that_is_told_to_stop_says_so(backend: str) -> None:
    from bitplan.solvers.programs import program

    problem, told = hard(), threading.Event()
    built = program.build(problem, problem.allowed, 100.0)
    threading.Timer(0.3, told.set).start()
    chosen = next(each for each in BACKENDS if each.name == backend)
    assert chosen.run(built.lp, Deadline(stopped=told.is_set), 0.0).state == STOPPED
    assert told.is_set() and not _solvers()


def test_one_that_was_told_before_it_begins_calls_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr("bitplan.solvers.programs.program.run", lambda *args: calls.append(args))
    stopped = Effort(3600.0, stopped=lambda: True)
    problem = hard(40)
    for solution in (
        solve(problem, stopped), strategy_named("ilp").run(problem, stopped),
        *(each for _, each in frontier(problem, "c0", [17_200, 16_800], stopped)),
    ):  # fmt: skip
        assert solution.status in (Status.FEASIBLE, Status.INTERRUPTED) and "told to stop" in solution.stopped
    assert not calls


def test_an_explanation_ends_when_it_is_told_to() -> None:
    problem = hard()
    tight = replace(problem, budgets=tuple(replace(budget, limit=120 * 200) for budget in problem.budgets))
    told = AfterCalls(3)
    explain(tight, Effort(3600.0, stopped=told))
    assert told.seen > told.calls


def test_the_word_to_stop_is_no_part_of_what_an_effort_says() -> None:
    effort = Effort(2.0, stopped=lambda: True)
    assert effort == Effort(2.0) and "stopped" not in repr(effort)
    assert effort.to_json() == {"time_limit": 2.0, "gap": 0.0, "backend": None}


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_what_the_work_raises_is_raised(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        attended(work, lambda: False, lambda: None)


def _interrupted(work: Callable[[threading.Event], object]) -> None:
    """Run the work in this thread and send SIGINT once it has begun."""
    begun = threading.Event()

    def interrupt() -> None:
        begun.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        work(begun)


@pytest.mark.parametrize("backend", HERE)
def test_ctrl_c_ends_a_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import bitplan.solvers.programs.backends.cbc as cbc
    import bitplan.solvers.programs.backends.highs as highs

    ended: list[bool] = []

    def work(begun: threading.Event) -> None:
        def seen(run: Callable[[], object], stopped: Callable[[], bool], stop: Callable[[], object]) -> bool:
            def run_and_tell() -> None:
                begun.set()
                run()
                ended.append(True)

            return attended(run_and_tell, stopped, stop)

        monkeypatch.setattr(cbc, "attended", seen)
        monkeypatch.setattr(highs, "attended", seen)
        strategy_named("ilp").run(hard(), Effort(3600.0, backend=backend))

    _interrupted(work)
    assert ended == [True] and not _solvers()


def _solvers() -> list[str]:
    """The solver processes of this process."""
    return [child.name() for child in psutil.Process().children(recursive=True) if "cbc" in child.name()]
