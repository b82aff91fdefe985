"""Runs cases in forked processes: a crash or a hang of one is a finding, and the next case goes on."""

from __future__ import annotations

import json
import os
import random
import resource
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.box import install, new_box
from tests.fuzz.case import Case, Family, TimeLimitError, raised
from tests.fuzz.world import World

BATCH = 250  # cases of one process
SOFT, HARD = 10.0, 60.0  # seconds of CPU time until a case is interrupted, and seconds until its process is killed
MEMORY = 3 * 2**30  # bytes that a process may map beyond what it was forked with
GROWTH = 2**20  # KiB that a case may add to the largest resident memory


@dataclass(frozen=True)
class Result:
    """What one case did.

    Attributes:
        family, number: the case.
        findings: what was found wrong: kind, details.
        codes: the exit code of each command; None where it raised.
        seconds: how long it took.
    """

    family: str
    number: int
    findings: tuple[tuple[str, str], ...]
    codes: tuple[int | None, ...]
    seconds: float


def run_case(family: Family, seed: int, number: int, world: World) -> tuple[Result, Case]:
    """Runs one case in this process, which `install` watches."""
    box = new_box(world.root / "box")
    case = Case(family.name, number, random.Random(f"{seed}/{family.name}/{number}"), world, box)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    tempfile.tempdir = os.environ["TMPDIR"] = str(box.root / "tmp")
    try:
        with _limited(SOFT):
            family.run(case)
    except TimeLimitError as late:
        case.find(f"takes over {SOFT:.0f} s: {raised(late)}", case.edits)
    except (Exception, RecursionError, MemoryError) as error:
        case.find(f"raised {raised(error)}", traceback.format_exc()[-500:])
    seconds = time.monotonic() - start
    for event in dict.fromkeys(box.events):
        case.find(f"outside --out: {event.split()[0]}", (event, case.edits))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > GROWTH:
        case.find("takes over 1 GiB", f"{grown} KiB")
    codes = tuple(answer.code for answer in case.answers)
    return Result(family.name, number, tuple(case.findings), codes, seconds), case


class _limited:  # noqa: N801 - a context manager
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        signal.signal(signal.SIGPROF, _late)
        signal.setitimer(signal.ITIMER_PROF, self.seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _late(*_: object) -> None:
    raise TimeLimitError


def run_family(family: Family, seed: int, numbers: Sequence[int], world: World) -> Iterator[Result]:
    """Yields the result of each case; processes end with the iterator."""
    left = list(numbers)
    while left:
        done = 0
        for result in _batch(family, seed, left[:BATCH], world):
            done += 1
            yield result
        del left[:done]


def _batch(family: Family, seed: int, numbers: Sequence[int], world: World) -> Iterator[Result]:
    """Yields results until all are there or the process dies; then the last one says of what."""
    pid, lines = _forked(lambda write: _work(family, seed, numbers, world, write))
    count = 0
    try:
        for line in lines:
            if line is None:
                break
            data = json.loads(line)
            yield Result(data[0], data[1], tuple(map(tuple, data[2])), tuple(data[3]), data[4])
            count += 1
        if count < len(numbers):
            yield Result(family.name, numbers[count], ((f"the process ended: {_end(pid)}", ""),), (), 0.0)
            pid = 0
    finally:
        if pid:
            _end(pid)


def _work(family: Family, seed: int, numbers: Sequence[int], world: World, write: Callable[[str], None]) -> None:
    _bound_memory()
    install()
    for number in numbers:
        result, _ = run_case(family, seed, number, world)
        write(json.dumps([result.family, result.number, result.findings, result.codes, result.seconds]))


def _bound_memory() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def in_fork(work: Callable[[], None]) -> None:
    """Runs it in a forked process, whose threads and open files end with it. Raises RuntimeError where it fails."""
    pid, lines = _forked(lambda write: work(), limit=600.0)
    list(lines)
    if (end := _end(pid)) != "exit code 0":
        raise RuntimeError(f"the process ended: {end}")


def _forked(work: Callable[[Callable[[str], None]], None], limit: float = HARD) -> tuple[int, Iterator[str | None]]:
    """Forks a process that writes lines to a pipe; the iterator ends with None where it is silent for too long."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(reading)
            work(lambda line: _write_line(writing, line))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    return pid, _lines(pid, reading, limit)


def _write_line(pipe: int, line: str) -> None:
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def _lines(pid: int, pipe: int, limit: float) -> Iterator[str | None]:
    buffer = b""
    try:
        while True:
            if not select.select([pipe], [], [], limit)[0]:
                os.kill(pid, signal.SIGKILL)
                yield None
                return
            data = os.read(pipe, 65536)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            yield from (line.decode() for line in lines)
    finally:
        os.close(pipe)


def _end(pid: int) -> str:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Counts of findings by family and kind, with the first cases of each."""
    families: dict[str, Any] = {}
    for result in results:
        row = families.setdefault(result.family, {"cases": 0, "failed": 0, "commands": 0, "accepted": 0,
                                                  "seconds": 0.0, "slowest": 0.0, "kinds": {}})  # fmt: skip
        row["cases"] += 1
        row["failed"] += bool(result.findings)
        row["commands"] += len(result.codes)
        row["accepted"] += sum(code == 0 for code in result.codes)
        row["seconds"] += result.seconds
        row["slowest"] = max(row["slowest"], result.seconds)
        for kind in dict.fromkeys(kind for kind, _ in result.findings):
            entry = row["kinds"].setdefault(kind, {"cases": 0, "first": [], "example": ""})
            entry["cases"] += 1
            entry["first"] = [*entry["first"], result.number][:5]
            entry["example"] = entry["example"] or next(text for name, text in result.findings if name == kind)
    return families
