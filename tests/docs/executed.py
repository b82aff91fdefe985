"""Runs the commands and the code of a page, in order and in one folder, and compares or updates the outputs on it.

A `console` block holds commands behind `$ `, each with its output below. The output of a `python` block is in the
`text` block that follows it.
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
    """One command or one block of Python.

    Attributes:
        language: `console` or `python`.
        code: the command without `$ `, or the block.
        shown: the output on the page.
    """

    language: str
    code: str
    shown: str


def steps_of(page: str) -> list[Step]:
    """Return the steps of a page, in order."""
    return [step for block in _BLOCK.finditer(page) for step in _steps(block)]


def run(step: Step, names: dict[str, Any]) -> str:
    """Run a step in the current folder and return its output. names: the variables that Python blocks share."""
    if step.language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(step.code, names)
        return printed.getvalue()
    tool, *words = shlex.split(step.code)
    assert tool == "bitplan", f"{tool} is not bitplan; show it in a block that is not run"
    result = CliRunner(env=_TERMINAL).invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, f"{step.code}: {result.output}"
    return "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines())


def rewritten(page: str) -> str:
    """Run all steps in the current folder and return the page with their present outputs."""
    names: dict[str, Any] = {}

    def update(block: re.Match[str]) -> str:
        outputs = [(step, run(step, names)) for step in _steps(block)]
        if block[1]:
            return "```console\n" + "".join(f"$ {step.code}\n{out}" for step, out in outputs) + "```\n"
        ((step, out),) = outputs
        return f"```python\n{step.code}```\n" + (f"\n```text\n{out}```\n" if out else "")

    return _BLOCK.sub(update, page)


def differences(shown: str, printed: str) -> list[str]:
    """Return where two outputs differ. Words must be equal and numbers nearly equal, because losses and choices differ
    by rounding from one processor to another. Times may have any value."""
    old, new = (_words(text) for text in (shown, printed))
    if len(old) != len(new):
        return [f"{len(old)} words became {len(new)}: {printed}"]
    return [f"{a} became {b}" for a, b in zip(old, new, strict=True) if not _same(a, b)]


def _steps(block: re.Match[str]) -> list[Step]:
    if block[3]:
        return [Step("python", block[4], block[5] or "")]
    return [Step("console", code, shown) for code, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block[2], re.M)]


def _words(text: str) -> list[str]:
    """Return the words of a text without times and the rules of tables."""
    rows, times = [], set[int]()
    for line in text.splitlines():
        if re.fullmatch(r"\|[-|:]+\|", line):
            continue
        if found := re.match("time of the layers[^:]*:|int8 products:", line):  # all of it depends on the processor
            line = found[0]
        cells = line.split("|")
        if "ms" in re.findall(r"\w+", line) and len(cells) > 2:
            times |= {place for place, cell in enumerate(cells) if re.search(r"\bms\b", cell)}
        rows.append(" ".join("ms" if place in times and len(cells) > 2 else cell for place, cell in enumerate(cells)))
    beside = r" \(full precision [\d.,e+]+ ms, [\d.]+x\)"
    return re.sub(r"[\d.,e+]+ (ms|s)\b", r"\1", re.sub(beside, "", "\n".join(rows))).split()


def _same(a: str, b: str) -> bool:
    """Whether two words are the same: numbers may differ by a tenth, a line of the map of layers in three layers."""
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
