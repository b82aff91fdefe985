"""Errors on one line."""

from __future__ import annotations

from bitplan.planner.texts import one_line


def test_an_error_is_one_line_and_no_terminal_obeys_it() -> None:
    assert one_line(" a\nb\t c\u2028d ") == "a b c d"
    assert one_line("\x1b]0;title\x07 \x00 \ud800 \x9b") == "\\x1b]0;title\\x07 \\x00 \\ud800 \\x9b"
    assert one_line("é 猫 – €") == "é 猫 – €"
    assert one_line("abc" * 9, 4) == "abca"
