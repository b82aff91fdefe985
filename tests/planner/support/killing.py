"""Kills and resumes a profile in steps, for the test and for the benchmark."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bitplan.planner.measurement.engines.ray import RayActor
from bitplan.planner.profiles.file import ProfileError
from bitplan.planner.profiles.profile import content_digest, open_profile
from tests.planner.support.forked import start

SETTINGS = {"--method": "exhaustive", "--schemes": "w2ma8", "--steps": "2", "--timesteps": "1", "--guidance": "2",
            "--threads": "1"}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The command that profiles the pipeline `folder` into `out`."""

    folder: Path
    clip: Path
    prompts: Path
    out: Path
    options: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        places = (str(self.folder), "--clip", str(self.clip), "--prompts", str(self.prompts), "--out", str(self.out))
        settings = [word for name, value in SETTINGS.items() if name not in self.options for word in (name, value)]
        return ["profile", *places, *settings, *self.options]

    def start(self, output: Path = Path(os.devnull)) -> BaseProcess:
        return start(*self.words, output=output)


def progress(path: Path) -> int:
    """Returns the rows on the disk: costs and measured (layer, scheme)."""
    try:
        with open_profile(path) as store:
            return len(store.costs()) + len(store.measured())
    except ProfileError:  # not there yet, or not laid out
        return 0


def measured(path: Path) -> int:
    """Returns the number of (layer, scheme) on the disk."""
    try:
        with open_profile(path) as store:
            return len(store.measured())
    except ProfileError:  # not there yet
        return 0


def kill_at(run: Run, rows: int, delay: float) -> int:
    """Starts, waits for `rows` rows and `delay` more seconds, and kills; returns the stored rows, or -1 if it had
    finished.
    """
    process = run.start()
    while process.exitcode is None and progress(run.out) < rows:
        time.sleep(0.03)
    time.sleep(delay)
    process.kill()
    process.join()
    return -1 if process.exitcode == 0 else progress(run.out)


def finish(run: Run) -> str:
    """Runs to the end and returns the content digest."""
    printed = run.out.with_suffix(".log")
    process = run.start(printed)
    process.join()
    assert process.exitcode == 0, printed.read_text()
    with open_profile(run.out) as store:
        return content_digest(store)


def kills(run: Run, total: int, times: int, seed: int) -> Iterator[tuple[int, int]]:
    """Kills `times` times at random moments between the start and `total` rows; returns (rows before, rows after)."""
    rng = random.Random(seed)
    for goal in sorted(rng.randrange(1, total - 8) for _ in range(times)):
        before = progress(run.out)
        yield before, kill_at(run, max(goal, before + 1), rng.uniform(0, 0.02))


def workers_below(pid: int) -> list[int]:
    """Returns the pids of Ray workers among the descendants of a process that have measured or are measuring."""
    import psutil

    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process.pid for process in family if f"ray::{RayActor.__name__}" in " ".join(_title(process))]


def _title(process: Any) -> list[str]:
    import psutil

    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
