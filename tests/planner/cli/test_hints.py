"""Every `next:` hint runs as it stands, in each situation in which it is given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import bitplan
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.cli.hints import after_solve, budget_of
from bitplan.planner.profiles.profile import open_profile
from tests.planner.interop.test_foreign import GOOD
from tests.planner.support.documented import FILES

FEW = ["--count", 1, "--timesteps", 1, "--probes", 1, "--checks", 0, "--schemes", "w8a8,w2ma8"]
SUBJECT = ["profile", "my_model:subject", "--out", "s.profile", *FEW]


def measured(folder: Path, clip: Path, out: str, *more: object) -> list[object]:
    return ["profile", folder, "--out", out, "--clip", clip, "--steps", 1, *FEW, *more]


@pytest.fixture
def at(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.profile").write_bytes(finished.read_bytes())
    for name, data in GOOD.items():
        (tmp_path / name).write_text(yaml.safe_dump(data, sort_keys=False))
    return tmp_path


# a situation -> (the commands that lead to it, what the hint begins with)
SITUATIONS: dict[str, tuple[Callable[[Path, Path], list[list[object]]], str]] = {
    "a profile": (lambda t, clip: [measured(t, clip, "a.profile")], "bitplan solve a.profile --memory"),
    "a share": (
        lambda t, clip: [
            measured(t, clip, "OTHER.profile", "--part", "2/2"),
            measured(t, clip, "a.profile", "--part", "1/2"),
        ],
        "bitplan merge a.profile OTHER.profile --out whole-a.profile",
    ),
    "one share of one": (lambda t, clip: [measured(t, clip, "a.profile", "--part", "1/1")], "bitplan solve a.profile"),
    "shares merged": (
        lambda t, clip: [
            measured(t, clip, "1.profile", "--part", "1/2"),
            measured(t, clip, "2.profile", "--part", "2/2"),
            ["merge", "1.profile", "2.profile", "--out", "m.profile"],
        ],
        "bitplan solve m.profile",
    ),
    "some shares merged": (
        lambda t, clip: [
            measured(t, clip, "1.profile", "--part", "1/3"),
            measured(t, clip, "2.profile", "--part", "2/3"),
            ["merge", "1.profile", "2.profile", "--out", "m.profile"],
        ],
        "bitplan inspect m.profile",
    ),
    "large schemes alone": (
        lambda t, clip: [measured(t, clip, "a.profile", "--schemes", "fp8a16")],
        "bitplan solve a.profile --memory",
    ),
    "costs timed again": (lambda t, clip: [["cost", "t.profile", "--out", "c.profile"]], "bitplan solve c.profile --"),
    "measurements imported": (
        lambda t, clip: [["import", "mixdq", ".", "--out", "i.profile"]],
        "bitplan solve i.profile",
    ),
    "a plan": (lambda t, clip: [["solve", "t.profile", "--out", "p.yaml", "--memory", "40%"]], "bitplan apply p.yaml "),
    "a plan with spaces in its name": (
        lambda t, clip: [["solve", "t.profile", "--out", "my plan.yaml", "--memory", "40%"]],
        "bitplan apply 'my plan.yaml' ",
    ),
    "a simulated plan": (
        lambda t, clip: [["solve", "t.profile", "--out", "p.yaml", "--uniform", "w4a4", "--kernels", "fake"]],
        "bitplan apply p.yaml ",
    ),
    "a plan of a Subject": (
        lambda t, clip: [SUBJECT, ["solve", "s.profile", "--out", "p.yaml", "--memory", "60%"]],
        "bitplan apply p.yaml PIPELINE --out img.png",
    ),
    "a sweep": (
        lambda t, clip: [["sweep", "t.profile", "--out", "run", "--points", 2]],
        "bitplan report run --out report.html",
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_hint_runs_as_it_stands(
    name: str, at: Path, tiny_folder: Path, clip_folder: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at / "my_model.py").write_text(FILES["my_model.py"])
    commands, begins = SITUATIONS[name]
    for command in commands(tiny_folder, clip_folder):
        options = [each for each in command if str(each).startswith("--")]
        command = without_first(command, next((each for each in options if options.count(each) > 1), None))
        done = command_line(*command)
        assert done.exit_code == 0, done.output
    (hint,) = re.findall(r"; next: (.*)$", done.stdout, re.MULTILINE)
    assert hint.startswith(begins), hint
    words = shlex.split(hint.partition(", where ")[0])
    run = command_line(*["my_model:subject" if word == "PIPELINE" else word for word in words[1:]])
    assert run.exit_code == 0, (hint, run.output)


def without_first(command: list[object], option: object) -> list[object]:
    """The command without the first of an option that it has twice."""
    if option is None:
        return command
    place = command.index(option)
    return command[:place] + command[place + 2 :]


@pytest.mark.parametrize(
    ("prompts", "kind", "option"),
    [
        (["a cat"], "StableDiffusionPipeline", " --prompt '...'"),
        ([{}], "DDPMPipeline", ""),
        ([{"image": "x.png"}], "Other", " --prompts CONDITIONS.yaml"),
        (["a", "b"], "Subject", ""),
    ],
)
def test_what_is_painted_is_what_was_measured(
    prompts: list[object], kind: str, option: str, finished: Path, at: Path
) -> None:
    plan = bitplan.solve(finished, at / "p.yaml", memory="50%")
    header = {"model": {"pipeline": kind}, "settings": {"prompts": prompts}}
    assert after_solve(plan, header, at / "p.yaml").endswith(f"{option} --out img.png")


def test_a_budget_on_time_is_suggested_where_it_can_be_met(finished: Path) -> None:
    with open_profile(finished) as store:
        evidence = read_evidence(store)
    fast = replace(evidence, ms={pair: 2.0 if pair[1] == "keep" else 1.0 for pair in evidence.ms})
    slow = replace(evidence, ms=dict.fromkeys(evidence.ms, 2.0))
    assert budget_of(fast, latency=True) == ("--latency", "80%")
    assert budget_of(slow, latency=True) == budget_of(fast, latency=False) == ("--memory", "30%")
