"""A page whose commands and code run, one after the other, in one folder, and whose outputs are what came out.

A block of `console` holds commands behind `$ `, each with its output below. What a block of `python` prints is in the
block of `text` that follows it.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from bitplan.planner.cli import main

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(console)\n(.*?)^```\n|^```(python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
_TERMINAL = {"COLUMNS": "100", "NO_COLOR": "1"}
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Step:
    """One command or one block of Python, and the output that its page shows."""

    language: str
    code: str
    shown: str


def steps_of(page: str) -> list[Step]:
    """All of them, in order."""
    return [step for block in _BLOCK.finditer(page) for step in _steps(block)]


def run(step: Step, names: dict[str, Any]) -> str:
    """What a step prints, in the current folder. names: of the Python blocks, kept from one to the next."""
    if step.language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(step.code, names)
        return printed.getvalue()
    tool, *words = shlex.split(step.code)
    assert tool == "bitplan", f"{tool} is no bitplan; show it in a block that is not run"
    done = CliRunner(env=_TERMINAL).invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, f"{step.code}: {done.output}"
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def rewritten(page: str) -> str:
    """The page with what comes out now. Runs everything, in the current folder."""
    names: dict[str, Any] = {}

    def fresh(block: re.Match[str]) -> str:
        done = [(step, run(step, names)) for step in _steps(block)]
        if block[1]:
            return "```console\n" + "".join(f"$ {step.code}\n{out}" for step, out in done) + "```\n"
        ((step, out),) = done
        return f"```python\n{step.code}```\n" + (f"\n```text\n{out}```\n" if out else "")

    return _BLOCK.sub(fresh, page)


def differences(shown: str, found: str) -> list[str]:
    """Where two outputs differ: words must be equal, numbers nearly so (losses are equal within rounding from one
    processor to another, and choices with them), and times are free."""
    old, new = (_words(text) for text in (shown, found))
    if len(old) != len(new):
        return [f"{len(old)} words became {len(new)}: {found}"]
    return [f"{a} became {b}" for a, b in zip(old, new, strict=True) if not _same(a, b)]


def _steps(block: re.Match[str]) -> list[Step]:
    if block[3]:
        return [Step("python", block[4], block[5] or "")]
    return [Step("console", code, shown) for code, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block[2], re.M)]


def _words(text: str) -> list[str]:
    """The words of a text, times and the lines of tables taken out."""
    rows, timed = [], set[int]()
    for line in text.splitlines():
        if re.fullmatch(r"\|[-|:]+\|", line):
            continue
        cells = line.split("|")
        if "ms" in re.findall(r"\w+", line) and len(cells) > 2:
            timed |= {place for place, cell in enumerate(cells) if re.search(r"\bms\b", cell)}
        rows.append(" ".join("ms" if place in timed and len(cells) > 2 else cell for place, cell in enumerate(cells)))
    return re.sub(r"[\d.,e+]+ (ms|s)\b", r"\1", "\n".join(rows)).split()


def _same(a: str, b: str) -> bool:
    """Numbers within a tenth, and maps of layers but for three of a line."""
    if a == b:
        return True
    if len(a) == len(b) and re.fullmatch(r"[\d·]{4,}", a):
        return sum(one != other for one, other in zip(a, b, strict=True)) <= 3
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(_near(*(float(text.replace(",", "")) for text in pair)) for pair in pairs)


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= max(0.1 * abs(a), 2 if a == int(a) else 1e-3)
