"""The README says only what is true: its commands, options, schemes, files, names and figures exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import bitplan
from bitplan.planner.cli import main
from bitplan.planner.evaluation.report import summary
from bitplan.plans.scheme import parse_scheme

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_commands_and_options_exist() -> None:
    lines = re.findall(r"^    bitplan (\w+)(.*)$", TEXT, re.M)
    assert {verb for verb, _ in lines} == set(main.commands)
    for verb, rest in lines:
        known = {name for option in main.commands[verb].params for name in option.opts}
        assert set(re.findall(r"--[a-z-]+", rest.split("#")[0])) <= known
    every = {name for command in main.commands.values() for option in command.params for name in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--out"} <= every


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


def test_the_measured_table_is_the_demo_s() -> None:
    assert summary(json.loads((ROOT / "benchmarks/results/demo.json").read_text())) in TEXT
