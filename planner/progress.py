"""Progress of a run on standard error, drawn by tqdm. Imports no torch."""

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

from bitplan.planner.environment import environment

# Variables that stop the bars of libraries; tqdm itself reads its own only when it is imported.
_QUIET = "BITPLAN_QUIET"
_SILENT = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", _QUIET: "1"}
_UNKNOWN = "{desc}: {elapsed} elapsed"
_KNOWN = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} remaining"
_KNOWN_IN_LOG = "{desc}: {percentage:.0f}%, {elapsed} elapsed, {remaining} remaining"
_BAR_IN_LOG = "{desc}: {n_fmt} of {total_fmt}, {elapsed} elapsed, {remaining} remaining"
_UP = "\x1b[A"  # by which tqdm goes back to the line of an outer bar
_OFTEN, _SELDOM = 0.1, 10.0  # seconds between two lines, on a terminal and in a log
_PATIENT = 2.0, 10.0  # seconds until the first line of a run that is usually quick, on a terminal and in a log
_ENOUGH = 0.25  # share of a phase after which its own pace alone predicts its rest


# Expected seconds of a phase, in full-precision runs of one prompt, as measured on `scenes`:
_PROBED, _SCHEME = 24.0, 1.8  # runs to probe a prompt, and further runs for each scheme
_MEASURED = 1.2  # runs to measure a prompt
_TIMED = 0.1  # seconds to time the candidates of one shape and scheme


def is_silent() -> bool:
    """Whether bars are switched off."""
    return bool(os.environ.get("TQDM_DISABLE"))


def tell(text: str) -> None:
    """Print a line on standard error, except within `silenced`."""
    if not os.environ.get(_QUIET):
        print(text, file=sys.stderr)


@contextmanager
def silenced(active: bool = True) -> Iterator[None]:
    """Switches progress bars off within the `with`, also in processes that start there. active: False has no effect."""
    with environment(_SILENT if active else {}):
        yield


class LogLines:
    """Standard error where it is no terminal: each state of a bar is a line of its own, and no line comes twice."""

    ends_lines = True

    def __init__(self) -> None:
        self._stream, self._last = sys.stderr, ""

    def write(self, text: str) -> None:
        line = text.replace(_UP, "").strip()
        if line not in ("", self._last):
            self._last = line
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


def bar(items: Iterable[Any] | None, name: str, total: int, unit: str) -> Any:
    """A bar of its own, for a run of one phase."""
    log = {} if sys.stderr.isatty() else {"file": LogLines(), "bar_format": _BAR_IN_LOG, "mininterval": _SELDOM}
    return tqdm(items, name, total, unit=unit, disable=is_silent() or not total, **log)


@dataclass
class Phase:
    """One part of a run.

    Attributes:
        name: name of the phase.
        total: units in all.
        unit: name of the unit; empty where units are not shown.
        known: units that an earlier run did.
        each: units a step.
        guess: expected seconds of the phase.
        start: when it began, by `time.monotonic`.
        finished: units that this run finished.
        partial: units that this run did of steps that are not finished.
    """

    name: str
    total: float
    unit: str
    known: float
    each: float
    guess: float
    start: float
    finished: float = 0.0
    partial: float = 0.0

    def remaining(self, now: float) -> float:
        """About how many seconds remain: by the guess at first, then more and more by the phase's own pace."""
        todo = self.total - self.known
        share = min((self.finished + self.partial) / todo, 1.0) if todo > 0 else 1.0
        certainty = min(share / _ENOUGH, 1.0) if self.guess else 1.0
        whole = (now - self.start) / share if share else 0.0
        return (1 - share) * (certainty * whole + (1 - certainty) * self.guess)

    def __str__(self) -> str:
        if not self.unit:
            return self.name
        units = min(math.floor(self.known + self.finished + self.partial + 1e-6), round(self.total))
        return f"{self.name} {units:,}/{round(self.total):,} {self.unit}"


class Course:
    """One line for all phases of a run, with the time that remains for all of them together.

    The line is a bar of seconds: those elapsed, and those that remain by the pace of the current phase and by the
    expected seconds of later phases. So a run that continues an interrupted one shows the right remaining time, too.
    """

    def __init__(
        self, name: str, visible: bool = True, deadline: float = math.inf, patient: bool = False
    ) -> None:  # fmt: skip
        """name: name of the run; deadline: when the run ends at the latest, by `time.monotonic`; patient: show nothing
        of a run that ends within seconds."""
        self.deadline = deadline
        self.spent: dict[str, float] = {}
        self._name, self._expected, self._phase = name, dict[str, float](), Phase("", 0, "", 0, 1, 0, 0)
        in_log = not sys.stderr.isatty()
        delay = _PATIENT[in_log] if patient else 0.0
        self._first, self._next = time.monotonic() + delay, 0.0
        self._interval, self._known = (_SELDOM, _KNOWN_IN_LOG) if in_log else (_OFTEN, _KNOWN)
        self._bar = tqdm(
            desc=name, disable=is_silent() or not visible, dynamic_ncols=not in_log, bar_format=_UNKNOWN, delay=delay,
            file=LogLines() if in_log else None,
        )  # fmt: skip

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Set the expected seconds of later phases, by their names."""
        self._expected |= {name: guess for name, guess in seconds.items() if name not in self.spent}

    @contextmanager
    def phase(self, name: str, total: float = 1, unit: str = "", known: float = 0, each: float = 1) -> Iterator[None]:
        """Make the `with` one phase; the arguments are those of `Phase`."""
        start = time.monotonic()
        self._phase = Phase(name, total, unit, known, each, self._expected.pop(name, 0.0), start)
        self._show(start)
        try:
            yield
        except Exception as error:
            error.add_note(name)  # the command line states it beside an error that is not BitPlan's own
            raise
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.monotonic() - start

    def advance(self, steps: float = 1) -> None:
        """Count finished steps of the phase, including what `hint` counted of them."""
        units = steps * self._phase.each
        self._phase.finished += units
        self._phase.partial = max(self._phase.partial - units, 0.0)
        self._show()

    def hint(self, steps: float) -> None:
        """Count steps that are partly done."""
        self._phase.partial += steps * self._phase.each
        self._show()

    def tick(self) -> bool:
        """Show how much time has elapsed. Returns False, so that a search asks it whether to stop."""
        self._show()
        return False

    def close(self, complete: bool) -> None:
        """Leave the line as it is, or full where the run is complete."""
        if complete:
            self._phase, self._expected, self.deadline = Phase("done", 0, "", 0, 1, 0, time.monotonic()), {}, math.inf
        self._show(time.monotonic())
        self._bar.close()

    def remaining(self, now: float) -> float | None:
        """About how many seconds remain; None while nothing is known."""
        if math.isfinite(self.deadline):
            return max(self.deadline - now, 0.0)
        if not (self._expected or self._phase.guess or self._phase.unit or self._phase.name == "done"):
            return None
        return self._phase.remaining(now) * (self._phase.name != "done") + sum(self._expected.values())

    def _show(self, at: float | None = None) -> None:
        now = time.monotonic() if at is None else at
        if self._bar.disable or now < self._first or (at is None and now < self._next):
            return
        self._bar.delay = 0  # or tqdm would not end the line
        self._next, remaining = now + self._interval, self.remaining(now)
        # tqdm divides the remaining amount by the amount a second: here both are seconds
        elapsed = max(self._bar.format_dict["elapsed"], 1e-6)
        self._bar.n, self._bar.total = elapsed, elapsed + (remaining or 0.0)
        self._bar.bar_format = _UNKNOWN if remaining is None else self._known
        said = ": ".join(filter(None, (self._name, str(self._phase))))
        self._bar.set_description_str(said, refresh=True)


_CURRENT: ContextVar[Course] = ContextVar("course")


def current() -> Course:
    """The course of the run in this process, or a hidden one where no run has one."""
    return _CURRENT.get(None) or Course("", visible=False)


@contextmanager
def course_of(name: str, patient: bool = False) -> Iterator[Course]:
    """Make the `with`, or the function that this decorates, one run. After an error its line stays as it is.

    patient: as in `Course`.
    """
    course, complete = Course(name, patient=patient), False
    token = _CURRENT.set(course)
    try:
        yield course
        complete = True
    finally:
        _CURRENT.reset(token)
        course.close(complete)


def expected_of(run: float, prompts: int, probing: int, schemes: float, todo: Mapping[str, int]) -> dict[str, float]:
    """The expected seconds of later phases.

    Args:
        run: seconds of one full-precision run of one prompt.
        prompts: prompts of a measurement.
        probing: prompts to probe.
        schemes: schemes a layer.
        todo: phase -> number of (layer, scheme) that remain.
    """
    expected = {name: count * prompts * run * _MEASURED for name, count in todo.items() if name != "costs"}
    return expected | {
        "estimates": probing * run * (_PROBED + _SCHEME * schemes),
        "costs": todo.get("costs", 0) * _TIMED,
    }
