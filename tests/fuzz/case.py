"""One case of a family: its folder, its random numbers, the commands that it runs, and what was found wrong."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.box import Box, watched
from tests.fuzz.values import CANARY
from tests.fuzz.world import World

CODES = {0, 1, 2, 3}  # of docs/scripting.md; 1 is what `check` alone returns
WRITES = ("--out", "-o", "--offload-folder", "--plans")  # options that name a place to write to
_COUNT = re.compile(r" stands for \d+ layers?$")  # what a name of several layers is answered with, before all else


class TimeLimitError(BaseException):
    """The case takes too long. No handler of exceptions stops it."""


@dataclass(frozen=True)
class Answer:
    """What a command did.

    Attributes:
        words: its command line.
        code: its exit code; None if it raised.
        out, err: what it printed.
    """

    words: tuple[str, ...]
    code: int | None
    out: str
    err: str

    @property
    def accepted(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        family, number: its name.
        random: its random numbers.
        world: the good files that it spoils copies of.
        box: its folder.
        findings: what was found wrong: kind, details.
        answers: the commands so far.
        edits: what was done to the files, for people.
    """

    family: str
    number: int
    random: random.Random
    world: World
    box: Box
    findings: list[tuple[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)

    def find(self, kind: str, details: object) -> None:
        self.findings.append((kind, str(details)[:600]))


@dataclass(frozen=True)
class Family:
    """A kind of input.

    Attributes:
        name: its name.
        about: what it spoils.
        run: runs a case.
        share: how many cases of it are run for each case of another family.
    """

    name: str
    about: str
    run: Callable[[Case], None]
    share: int = 1


def command(case: Case, *words: object) -> Answer:
    """Runs a command line in this process as a user would, and checks its exit code and what it prints."""
    from bitplan.planner.cli.commands import main

    line = tuple(str(word) for word in words)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    code: Any = 0
    case.box.places[:] = _places(case.box, line)
    with watched(case.box), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RuntimeWarning)
        try:
            main.main(list(line), prog_name="bitplan")
        except SystemExit as ended:
            code = 0 if ended.code is None else ended.code
        except Exception as error:
            code = None
            case.find(f"raised {raised(error)}", f"{' '.join(line)[:200]}: {error}")
    if any(f"{CANARY}:" in word for word in line):  # users import what they type
        case.box.events[:] = [event for event in case.box.events if CANARY not in event]
    answer = Answer(line, code, *(_text(stream) for stream in (out, err)))
    case.answers.append(answer)
    if code is not None:
        _check(case, answer)
    return answer


def _places(box: Box, line: Sequence[str]) -> list[Path]:
    """The values of the options that name places to write to."""
    values = [word.partition("=")[2] for word in line if word.partition("=")[0] in WRITES]
    values += [value for word, value in zip(line, line[1:], strict=False) if word in WRITES]
    return [Path(os.path.abspath(box.root / "cwd" / value)) for value in values]


def raised(error: BaseException) -> str:
    """The type of an exception, and the last line of BitPlan's that it went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
    own = [frame for frame in frames if re.search(r"/(planner|plans|sensitivity|solvers)/", frame.filename)]
    last = (own or frames or [None])[-1]
    where = "" if last is None else f" in {'/'.join(Path(last.filename).parts[-2:])}:{last.name}"
    return f"{type(error).__name__}{where}"


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer: Any = stream.buffer
    return str(buffer.getvalue().decode("utf-8", "replace"))


def _check(case: Case, answer: Answer) -> None:
    verb = answer.words[0] if answer.words else ""
    said = f"{' '.join(answer.words)[:200]} -> {answer.code}: {answer.err[:300]}"
    if crash := re.search(r"the full report is in (.*)", answer.err):
        text = Path(crash[1].strip()).read_text(errors="replace")
        frames = re.findall(r'File "[^"]*/((?:planner|plans|sensitivity|solvers)/[^"]*)", line \d+, in (\w+)', text)
        error = re.findall(r"^(\w[\w.]*(?:Error|Exception|Warning)\b.{0,40})", text, re.MULTILINE)
        case.find(f"crash in {':'.join(frames[-1]) if frames else verb}: {error[-1] if error else ''}", said)
    elif answer.code not in CODES or (answer.code == 1 and verb != "check"):
        case.find(f"exit code {answer.code} of {verb}", said)
    if "Traceback" in answer.err:
        case.find(f"traceback of {verb}", answer.err[-500:])
    lines = [line for line in answer.err.splitlines() if not _COUNT.search(line)]
    if answer.code and not lines:
        case.find(f"silent failure of {verb}", said)
    if answer.code and lines and not lines[0].startswith(("Usage: ", "Error: ")):
        if not all(line.startswith("bitplan: ") for line in lines) or (verb != "verify" and len(lines) > 1):
            case.find(f"not one line of {verb}: {_kind_of(lines)}", said)
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", answer.err):
            case.find("control characters in an error", repr(said))
    if not answer.code and "RuntimeWarning" in answer.err:
        case.find(f"warning in {verb}: {_kind_of(lines)}", said)


def _kind_of(lines: Sequence[str]) -> str:
    """The first line that is not BitPlan's, without what varies."""
    other = next((line for line in lines if not line.startswith("bitplan: ")), lines[0])
    return re.sub(r"\S*/|\d+", "", other)[:80]
