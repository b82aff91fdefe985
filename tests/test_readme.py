"""The README says only what is true: its commands, options, schemes, files, names and figures exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.measured import zoo
from benchmarks.readme import put, rows

import bitplan
from bitplan.planner.cli import main
from bitplan.plans.scheme import parse_scheme

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_commands_and_options_exist() -> None:
    assert set(re.findall(r"`bitplan (\w+)", TEXT)) == set(main.commands)
    for verb, rest in re.findall(r"^    bitplan (\w+)(.*)$", TEXT, re.M):
        known = {name for option in main.commands[verb].params for name in option.opts}
        assert set(re.findall(r"--[a-z-]+", rest.split("#")[0])) <= known
    every = {name for command in main.commands.values() for option in command.params for name in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--help"} <= every


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make (\w+)`?", TEXT)) <= targets | {"up"}


def test_schemes_parse_and_names_exist() -> None:
    for text in re.findall(r"`((?:w\d|fp8)\w*a\d+t?(?:\+first)?)`", TEXT):
        assert str(parse_scheme(text)) == text
    for name in re.findall(r"bitplan\.(\w+)\(", TEXT):
        assert callable(getattr(bitplan, name))


def test_files_named_exist() -> None:
    for path in re.findall(r"`((?:planner|plans|docs|benchmarks|examples|tests)/[\w/.-]+|CONTRIBUTING\.md)`", TEXT):
        assert (ROOT / path).exists(), path


def test_the_table_is_of_the_demo() -> None:
    report = json.loads((ROOT / "benchmarks/results/demo.json").read_text("utf-8"))
    assert put(TEXT, "demo", rows(report)) == TEXT, "python -m benchmarks.readme"


def test_figures_and_length() -> None:
    assert f"{zoo()} tested classes" in TEXT
    assert len(TEXT.splitlines()) < 130 and len(re.findall(r"\w\S*", TEXT)) < 1000
