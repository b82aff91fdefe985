"""Errors on one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bitplan.planner.texts import one_line, shell_command


def test_an_error_is_one_line_and_no_terminal_obeys_it() -> None:
    assert one_line(" a\nb\t c\u2028d ") == "a b c d"
    assert one_line("\x1b]0;title\x07 \x00 \ud800 \x9b") == "\\x1b]0;title\\x07 \\x00 \\ud800 \\x9b"
    assert one_line("é 猫 – €") == "é 猫 – €"
    assert one_line("abc" * 9, 4) == "abca"


@pytest.mark.parametrize(
    "name", ["plain", "two words", "$HOME and `id`", "it's", 'a"b', "-x", "--out", "a;b", "*", "~", "a\\b", "é"]
)
def test_a_shell_reads_a_suggested_command_as_its_words(name: str) -> None:
    """And none of its words is an option, by the rule of getopt that a path with ./ is not."""
    line = shell_command("printf", "%s\n", Path(name), "--keep", name)
    read = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout.splitlines()
    assert read == [f"./{name}" if name.startswith("-") else name, "--keep", name]
