"""How far a run is, on standard error, drawn by tqdm. Imports no torch."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

# What libraries that draw bars are told; tqdm itself reads its own only when it is imported.
_SILENT = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
_AHEAD, _UNKNOWN = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left", "{desc}: {elapsed} gone"
_OFTEN, _SELDOM = 0.1, 10.0  # seconds between two lines, on a terminal and in a log
_ENOUGH = 0.25  # share of a phase after which its own pace alone tells how long the rest takes


# Seconds of a phase before anything of it is known, from those of one full-precision run of one prompt, as on `scenes`:
_PROBED, _SCHEME = 24.0, 1.8  # runs that probing a prompt takes as long as, and more for each scheme
_MEASURED = 1.2  # runs a measurement of a prompt
_TIMED = 0.05  # seconds to time a candidate


def is_silent() -> bool:
    """Whether nobody wants bars."""
    return bool(os.environ.get("TQDM_DISABLE"))


@contextmanager
def silenced(wanted: bool = True) -> Iterator[None]:
    """Within the `with`, if wanted, no bars are drawn, here and in processes that are started here."""
    before = {name: os.environ.get(name) for name in _SILENT if wanted}
    os.environ.update({name: _SILENT[name] for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def bar(items: Iterable[Any] | None, what: str, total: int, unit: str, **options: Any) -> Any:
    """A bar of its own, for a run of one phase."""
    return tqdm(items, what, total, unit=unit, disable=is_silent() or not total, **options)


@dataclass
class Phase:
    """A stretch of a run. total, known: units in all, and those that an earlier run did; each: units a step; guess:
    seconds for the rest; begun: by `time.monotonic`; done: units since then; within: those of what is not whole yet."""

    name: str
    total: float
    unit: str
    known: float
    each: float
    guess: float
    begun: float
    done: float = 0.0
    within: float = 0.0

    def left(self, now: float) -> float:
        """Seconds, about: by the guess at first, then more and more by its own pace."""
        todo = self.total - self.known
        share = min((self.done + self.within) / todo, 1.0) if todo > 0 else 1.0
        sure = min(share / _ENOUGH, 1.0) if self.guess else 1.0
        whole = (now - self.begun) / share if share else 0.0
        return (1 - share) * (sure * whole + (1 - sure) * self.guess)

    def __str__(self) -> str:
        if not self.unit:
            return self.name
        done = min(math.floor(self.known + self.done + self.within + 1e-6), round(self.total))
        return f"{self.name} {done:,}/{round(self.total):,} {self.unit}"


class Course:
    """One line for all phases of a run, with the time that is left for all of them together.

    The line is a bar of seconds: so many are behind, so many ahead. Those ahead are told by the pace of the phase under
    way and by what is expected of those to come, so that a run that goes on where another stopped tells them as well.
    """

    def __init__(self, what: str, shown: bool = True, deadline: float = math.inf) -> None:
        """what: is run; deadline: by `time.monotonic`, at which it ends if it has not before."""
        self.deadline = deadline
        self.spent: dict[str, float] = {}
        self._what, self._expected, self._phase = what, dict[str, float](), Phase("", 0, "", 0, 1, 0, 0)
        often = _OFTEN if sys.stderr.isatty() else _SELDOM
        self._next, self._often = 0.0, often
        self._bar = tqdm(desc=what, disable=is_silent() or not shown, dynamic_ncols=True, bar_format=_UNKNOWN)

    def expect(self, seconds: Mapping[str, float]) -> None:
        """How long phases to come will take, by their names."""
        self._expected |= {name: guess for name, guess in seconds.items() if name not in self.spent}

    @contextmanager
    def phase(self, name: str, total: float = 1, unit: str = "", known: float = 0, each: float = 1) -> Iterator[None]:
        """The `with` is this phase. unit: what `total` counts, shown where it is given; known: done by earlier runs;
        each: units of one step."""
        begun = time.monotonic()
        self._phase = Phase(name, total, unit, known, each, self._expected.pop(name, 0.0), begun)
        self._show(begun)
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.monotonic() - begun

    def advance(self, steps: float = 1) -> None:
        """So many more steps of the phase are done, what `hint` told of them included."""
        units = steps * self._phase.each
        self._phase.done += units
        self._phase.within = max(self._phase.within - units, 0.0)
        self._show()

    def hint(self, steps: float) -> None:
        """So many are done of what is not whole yet."""
        self._phase.within += steps * self._phase.each
        self._show()

    def close(self, done: bool) -> None:
        """Leave the line as it is, or full where all is done."""
        if done:
            self._phase, self._expected, self.deadline = Phase("done", 0, "", 0, 1, 0, time.monotonic()), {}, math.inf
        self._show(time.monotonic())
        self._bar.close()

    def left(self, now: float) -> float | None:
        """Seconds, about; None while nothing is known."""
        if math.isfinite(self.deadline):
            return max(self.deadline - now, 0.0)
        if not (self._expected or self._phase.guess or self._phase.unit or self._phase.name == "done"):
            return None
        return self._phase.left(now) * (self._phase.name != "done") + sum(self._expected.values())

    def _show(self, at: float | None = None) -> None:
        now = time.monotonic() if at is None else at
        if self._bar.disable or (at is None and now < self._next):
            return
        self._next, left = now + self._often, self.left(now)
        # tqdm divides what is to do by what was done a second: here seconds by a second's seconds
        gone = max(self._bar.format_dict["elapsed"], 1e-6)
        self._bar.n, self._bar.total = gone, gone + (left or 0.0)
        self._bar.bar_format = _UNKNOWN if left is None else _AHEAD
        self._bar.set_description_str(f"{self._what}: {self._phase}", refresh=True)


_CURRENT: ContextVar[Course] = ContextVar("course")


def current() -> Course:
    """That of the run under way in this process, or one that nobody sees."""
    return _CURRENT.get(None) or Course("", shown=False)


@contextmanager
def course_of(what: str) -> Iterator[Course]:
    """The `with`, or the function that it decorates, is the whole run; where it ends in an error the line stays as far
    as it came."""
    course, done = Course(what), False
    token = _CURRENT.set(course)
    try:
        yield course
        done = True
    finally:
        _CURRENT.reset(token)
        course.close(done)


def expected_of(run: float, prompts: int, probing: int, schemes: float, todo: Mapping[str, int]) -> dict[str, float]:
    """Seconds of phases to come. run: seconds of one full-precision run of one prompt; prompts: of a measurement;
    probing: those to probe; schemes: a layer; todo: phase -> how many (layer, scheme) are left to do."""
    found = {name: count * prompts * run * _MEASURED for name, count in todo.items() if name != "costs"}
    return found | {"estimates": probing * run * (_PROBED + _SCHEME * schemes), "costs": todo.get("costs", 0) * _TIMED}
