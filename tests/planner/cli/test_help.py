"""`bitplan --help` lists the verbs in the order of work with whole summaries, and --out has one short form."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bitplan.planner.cli import main
from bitplan.planner.cli.commands import VerbCommand
from bitplan.planner.verbs import COMMANDS


def test_the_verbs_are_listed_in_the_order_of_work() -> None:
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    assert re.findall(r"^  (\w+)  +[A-Z]", text, re.MULTILINE) == [*COMMANDS, "completion"]
    order = ["profile", "solve", "sweep", "report", "verify", "apply", "evaluate", "export", "inspect", "doctor"]
    assert [name for name in COMMANDS if name in order] == order


def test_summaries_are_whole_sentences_within_80_columns() -> None:
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    assert "..." not in text.partition("Commands:")[2] and max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for verb in COMMANDS.values():
        first = re.split(r"(?<=\.)\s", verb.help, maxsplit=1)[0]
        assert first.endswith(".") and first in words, verb.name


WRITING = [name for name, verb in COMMANDS.items() if "out" in {each.name for each in VerbCommand(name, verb).params}]


@pytest.mark.parametrize("name", WRITING)
def test_out_has_a_short_form(name: str) -> None:
    out = next(each for each in main.commands[name].params if each.name == "out")
    assert isinstance(out, click.Option) and out.opts == ["--out", "-o"]


def test_the_short_form_and_the_long_one_are_one_option(command_line: Any) -> None:
    done = command_line("solve", "x.profile", "-o", "a.yaml", "--out", "b.yaml")
    assert done.exit_code == 2 and done.stderr == "bitplan: --out is given twice; give it once\n"
