"""Every verb in a script: --json is one document, --quiet is names of files, and <TAB> knows what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.shell_completion import get_completion_class

import bitplan
from bitplan.planner.cli import main
from bitplan.planner.cli.completion import SHELLS, VARIABLE
from bitplan.planner.errors import BAD_INPUT, INFEASIBLE, NO
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.progress import is_silent, silenced
from tests import tiny
from tests.planner.interop.test_foreign import GOOD

ROOT = Path(__file__).parents[3]
NO_RESULT = {"completion": "prints a script", "explore": "serves a page"}  # verb -> why it says no result
KEYS = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "scripting.md").read_text()))


@pytest.fixture(scope="module")
def scene(finished: Path, tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    """The arguments of every verb that says a result."""
    at = tmp_path_factory.mktemp("scripting")
    profile, plan = Path(shutil.copy(finished, at / "t.profile")), at / "p.plan.yaml"
    bitplan.solve(profile, plan, memory="25%")
    bitplan.sweep(profile, at / "swept", points=2)
    (at / "measured").mkdir()
    for name, data in GOOD.items():
        (at / "measured" / name).write_text(yaml.safe_dump(data, sort_keys=False))
    prompts = at / "prompts.txt"
    prompts.write_text("\n".join(tiny.PROMPTS))
    parts = [Path(shutil.copy(finished, at / f"{number}.profile")) for number in (1, 2)]
    few = Path(shutil.copy(finished, at / "few.profile"))
    with sqlite3.connect(few) as database:
        database.execute("DELETE FROM costs WHERE scheme NOT IN ('keep', 'w8a8')")
    made = ["--prompts", prompts, "--clip", clip_folder, "--steps", 2, "--guidance", 2]
    same = ["--schemes", ",".join(tiny.SCHEMES), "--timesteps", 2, *made]
    return {
        "profile": [tiny_folder, "--out", profile, *same],
        "solve": [profile, "--out", at / "s.plan.yaml", "--memory", "30%"],
        "sweep": [profile, "--out", at / "run", "--points", 2],
        "report": [at / "swept", "--out", at / "r.html"],
        "verify": [plan, profile],
        "why": [plan, profile, "unet.conv_in"],
        "predict": [plan, profile],
        "apply": [plan, tiny_folder, "--prompt", "a cat", "--steps", 1, "--out", at / "x.png"],
        "evaluate": [plan, tiny_folder, "--no-blocks", "--out", at / "report", *made],
        "bench": [plan, tiny_folder, "--pairs", 1, "--against", "float32", "--out", at / "b.json"],
        "check": [profile, tiny_folder, "--clip", clip_folder, "--out", at / "c.json"],
        "merge": [*parts, "--out", at / "m.profile"],
        "import": ["mixdq", at / "measured", "--out", at / "i.profile"],
        "export": [plan, "--to", "sdnq", "--model", profile, "--approximate", "--out", at / "e.json"],
        "inspect": [plan, "--profile", profile],
        "cost": [few, "--out", at / "cost.profile"],
        "doctor": [],
    }


TELLING = [name for name in main.commands if name not in NO_RESULT]


@pytest.mark.parametrize("verb", main.commands)
def test_every_verb_helps(command_line: Any, verb: str) -> None:
    main.commands[verb].get_help_option(click.Context(main.commands[verb]))  # click keeps what the first context makes
    for flag in ("-h", "--help"):
        result = command_line(verb, flag)
        assert result.exit_code == 0 and f"bitplan {verb}" in result.stdout.replace("main ", "bitplan ")


@pytest.mark.parametrize("verb", TELLING)
def test_every_verb_says_its_result_as_one_document(command_line: Any, scene: dict[str, Any], verb: str) -> None:
    result = command_line(verb, *scene[verb], "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict) and found
    assert found.keys() - {"source"} <= KEYS, verb
    outs = [Path(arg) for before, arg in zip(scene[verb], scene[verb][1:], strict=False) if before == "--out"]
    assert bool(outs) == ("wrote" in found)
    assert all(Path(path).exists() and str(path).startswith(str(outs[0])) for path in found.get("wrote", ()))
    for out in outs:
        if verb in ("merge", "cost"):  # these refuse to write over a file
            out.unlink()


QUIET = ("profile", "solve", "why", "inspect", "merge", "export", "doctor", "apply", "check")


@pytest.mark.parametrize("verb", QUIET)
def test_quiet_leaves_the_names_of_files(
    command_line: Any, scene: dict[str, Any], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    result = command_line(verb, *scene[verb], "-q")
    assert result.exit_code == 0 and result.stderr == ""
    outs = [str(arg) for before, arg in zip(scene[verb], scene[verb][1:], strict=False) if before == "--out"]
    assert result.stdout.splitlines() == outs


def test_the_numbers_are_those_of_the_verbs(command_line: Any, scene: dict[str, Any]) -> None:
    def told(verb: str) -> Any:
        return json.loads(command_line(verb, *scene[verb], "--json").stdout)

    profile = scene["solve"][0]
    plan = bitplan.solve(profile, scene["solve"][2], memory="30%")
    solved = told("solve")
    assert solved["schemes"] == plan.schemes and solved["predictions"] == plan.predictions
    assert sum(role["layers"] for role in solved["roles"]) == len(plan.schemes)
    assert sum(role["bytes"] for role in solved["roles"]) == plan.predictions["total"]["bytes"]
    assert told("verify")["holds"] is True
    why = told("why")
    assert why["scheme"] in {each["scheme"] for each in why["alternatives"] if each["costs"] == 0}
    assert [each["metric"] for each in told("predict")["metrics"]] == list(bitplan.predict(*scene["predict"]))
    seen = bitplan.inspect(profile).facts
    with open_profile(profile) as store:
        assert list(seen["layers"]) == list(store.layers()) and seen["families"] == store.families()
        pairs, prompts = len(store.measured()), len(store.header()["settings"]["prompts"])
        assert seen["measured"] == {"pairs": pairs, "of": pairs, "prompts": prompts}
    assert seen["measured"]["pairs"] > 100


def test_errors_are_as_ever(command_line: Any, scene: dict[str, Any], tmp_path: Path) -> None:
    plan, profile = scene["verify"]
    bad = tmp_path / "bad.plan.yaml"
    bad.write_text(plan.read_text().replace("objective: ", "objective: 1", 1))
    for args, code in (
        (["solve", profile, "--out", tmp_path / "x", "--memory", "1%"], INFEASIBLE),
        (["solve", tmp_path / "none", "--out", tmp_path / "x"], BAD_INPUT),
    ):
        for flags in (["--json"], ["-q"], ["--json", "-q"]):
            result = command_line(*args, *flags)
            assert result.exit_code == code and result.stdout == ""
            assert result.stderr.startswith("bitplan: ") and result.stderr.count("\n") == 1
    result = command_line("verify", bad, profile, "--json")
    assert result.exit_code == BAD_INPUT and json.loads(result.stdout)["holds"] is False and result.stderr
    assert NO == 1


def test_what_a_pipeline_prints_is_no_part_of_the_document(
    command_line: Any, scene: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitplan.planner.verbs import look

    said = look.doctor()

    def chatty() -> Any:
        print("loading ...")
        return said

    monkeypatch.setattr(look, "doctor", chatty)
    assert command_line("doctor").stdout.startswith("loading")
    for flags in (["--json"], ["--json", "-q"], ["-q"]):
        result = command_line("doctor", *flags)
        assert result.stderr == "loading ...\n" and (result.stdout == "" or json.loads(result.stdout))


def test_silence_ends_with_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with silenced(False):
        assert not is_silent()
    with silenced():
        assert is_silent() and os.environ["TQDM_DISABLE"] == "1"
    assert not is_silent() and "TQDM_DISABLE" not in os.environ


@pytest.fixture
def tab(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What bash is offered after a line."""

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        found = get_completion_class("bash")
        assert found is not None
        text = found(main, {}, "bitplan", VARIABLE).complete()
        return [each.partition(",")[2] for each in text.splitlines()]

    return complete


def test_the_shell_completes_values(tab: Callable[[str], list[str]], scene: dict[str, Any]) -> None:
    plan, profile = scene["verify"]
    with open_profile(profile) as store:
        layers = list(store.layers())
    assert tab("bitplan in") == ["inspect"]
    assert "w4ma8" in tab("bitplan profile scenes --schemes ")
    assert tab("bitplan profile scenes --schemes w8a8,w8") == ["w8a8,w8a8t", "w8a8,w8a8t+first"]
    assert tab("bitplan profile scenes --metric lp") == ["lpips"]
    assert tab(f"bitplan why {plan} {profile} ") == layers
    assert tab(f"bitplan why {plan} {profile} unet.conv_i") == ["unet.conv_in"]
    assert tab(f"bitplan solve {profile} --keep role:cr") == ["cross-attention"]  # bash holds `role:` already
    assert tab(f"bitplan solve {profile} --keep unet.conv_i") == ["unet.conv_in"]
    assert tab(f"bitplan solve {profile} --pin role:in=w4") == ["w4g64ma8", "w4a4"]
    assert tab(f"bitplan solve {profile} --cap ns") == ["nsr="]
    assert tab(f"bitplan solve {profile} --cap=nsr=w2") == ["w2ma8"]
    assert tab("bitplan solve --cap nsr=w4g64z") == ["w4g64za8"]
    assert tab(f"bitplan solve {profile} --objective lexicographic:alignment,q") == ["alignment,quality"]
    assert tab(f"bitplan solve {profile} --objective quality=1,ns") == ["1,nsr="]
    assert tab("bitplan solve --solver la") == ["lagrangian"]
    assert tab("bitplan export p --to g") == ["gguf-recipe"]
    assert tab("bitplan import m") == ["mixdq"]
    assert tab("bitplan why p nothing.profile ") == []  # and no complaint


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell(command_line: Any, shell: str) -> None:
    result = command_line("completion", shell)
    assert result.exit_code == 0 and VARIABLE in result.stdout and "bitplan" in result.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_a_real_bash_completes_without_torch(command_line: Any, scene: dict[str, Any], tmp_path: Path) -> None:
    plan, profile = scene["verify"]
    command, script = tmp_path / "bitplan", tmp_path / "completion.bash"
    blocked = "sys.modules |= dict.fromkeys(('torch', 'diffusers', 'transformers', 'scipy', 'pulp'))"
    code = f"import sys; {blocked}; from bitplan.planner.cli import main; main(prog_name='bitplan')"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    command.chmod(0o755)
    script.write_text(command_line("completion", "bash").stdout)
    line = f"bitplan why {plan} {profile} unet.conv_"
    asked = f'. {script}; COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _bitplan_completion {command}; '
    done = subprocess.run(
        ["bash", "--norc", "-c", asked + 'echo "${COMPREPLY[*]}"'], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["unet.conv_in", "unet.conv_out"], done.stderr


def test_each_option_is_completed_where_it_can_be() -> None:
    """Names of files by the shell itself, choices by click: what is left is free text or numbers."""
    wanted = {"schemes", "metrics", "caps", "objective", "pins", "keep", "backend", "solver", "uniform", "to"}
    for verb in main.commands.values():
        for parameter in verb.params:
            if parameter.name in wanted:
                offered = parameter.shell_complete(click.Context(verb), "")
                assert offered or parameter.name in ("layer",), (verb.name, parameter.name)


def test_the_suggested_command_is_one_that_a_shell_takes(finished: Path, tmp_path: Path, command_line: Any) -> None:
    out = tmp_path / "my plan.yaml"
    done = command_line("solve", finished, "--memory", "30%", "--out", out)
    assert f"next: bitplan apply '{out}' " in done.stdout
    done = command_line("inspect", "--", "-no such.profile")
    assert done.exit_code == 2
    done = command_line("verify", out, "no such.profile")
    assert "create it with `bitplan profile PIPELINE --out 'no such.profile'`" in done.stderr
