"""Every `bitplan` command that README and docs tell runs, or is in the table of those that cannot run here."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import yaml

import bitplan
from bitplan.planner.cli import main
from tests.planner.interop.test_foreign import GOOD
from tests.planner.support.documented import (
    FILES,
    NOT_RUN,
    ROOT,
    RUN_ELSEWHERE,
    SHORTER,
    STAND_INS,
    WRITES,
    Command,
    in_code,
    in_line,
)

torch.set_num_threads(1)
RUN = [command for command in in_code() if command.page not in RUN_ELSEWHERE and command.text not in NOT_RUN]


@pytest.fixture(scope="module")
def stand_in(
    finished: Path, tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, object]:
    """What is given instead of the names in the documents."""
    folder = tmp_path_factory.mktemp("stand-ins")
    bitplan.solve(finished, folder / "p.plan.yaml", memory="40%")
    bitplan.sweep(finished, folder / "run", points=3)
    for name, data in GOOD.items():
        (folder / name).write_text(yaml.safe_dump(data, sort_keys=False))
    return {
        "profile": finished, "plan": folder / "p.plan.yaml", "pipeline": tiny_folder, "CLIP": clip_folder,
        "mixdq folder": folder, "config.json": tiny_folder / "unet/config.json", "latency": "1000%",
        "run": folder / "run",
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Page -> the folder in which its commands run, one after the other."""
    found: dict[str, Path] = {}
    for page in {command.page for command in RUN}:
        found[page] = tmp_path_factory.mktemp("page")
        for name, text in FILES.items():
            (found[page] / name).write_text(text)
    return found


def given(command: Command, stand_in: Mapping[str, object]) -> list[str]:
    """The command's words as they can run in this folder."""
    _, verb, *words = command.words
    found = [verb]
    for before, word in zip([verb, *words], words, strict=False):
        row = next((row for row in STAND_INS if re.fullmatch(row[0], f"{verb} {word}")), None)
        if row is None or before in WRITES or Path(word).exists():
            found.append(word)
        elif row[1] in ("profile", "plan"):  # copies, each under its own name
            found.append(str(shutil.copy(stand_in[row[1]], word)))
        else:
            found.append(str(stand_in[row[1]]))
    more = next((options for start, options in SHORTER if re.match(start, command.text)), "").split()
    for option in (word for word in more if word.startswith("--") and word in found):
        place = found.index(option)
        del found[place : place + 2]  # an option is given once
    return [*found, *(str(stand_in.get(word, word)) for word in more)]


@pytest.mark.parametrize("command", RUN, ids=lambda command: f"{command.page}: {command.text}")
def test_it_runs(
    command: Command, stand_in: Mapping[str, object], folders: Mapping[str, Path], command_line: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folders[command.page])
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in FILES:
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    words = given(command, stand_in)
    outs = [Path(word) for before, word in zip(words, words[1:], strict=False) if before == "--out"]
    for path in outs:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    done = command_line(*words)
    assert done.exit_code == 0, done.output
    assert all(path.exists() for path in outs)


@pytest.mark.parametrize("command", [*in_line(), *in_code()], ids=lambda command: f"{command.page}: {command.text}")
def test_its_options_exist(command: Command) -> None:
    _, verb, *words = command.words
    assert verb in main.commands, verb
    parser = main.commands[verb].make_parser(click.Context(main.commands[verb]))
    if words and words[-1] in parser._long_opt and parser._long_opt[words[-1]].action == "store":
        words.append("...")  # a sentence that names the option alone
    options, _, _ = parser.parse_args(words)
    assert set(options) <= {parameter.name for parameter in main.commands[verb].params}


def test_what_is_not_run_is_told() -> None:
    assert set(NOT_RUN) <= {command.text for command in in_code()}
    pages = {command.page for command in in_code()}
    for page, test in RUN_ELSEWHERE.items():
        assert page in pages and Path(page).name in (ROOT / test).read_text(), page
