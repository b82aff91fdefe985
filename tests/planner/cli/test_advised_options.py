"""An error advises no option that the verb at hand does not have, unless it names a verb that has it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from bitplan.planner.choice.limits import check_solved
from bitplan.planner.choice.published import plan_in
from bitplan.planner.cli import main
from bitplan.planner.cli.options import parameters_of
from bitplan.planner.pipelines.conditions import GENERAL, built_in_prompts
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.references import typed
from bitplan.planner.pipelines.sources import load_subject
from bitplan.planner.pipelines.subject import Subject, conditions_of
from bitplan.planner.pipelines.weights import Weights
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.verbs import COMMANDS
from bitplan.plans.kernels import check_somewhere
from bitplan.plans.plan import check_fingerprint
from bitplan.plans.scheme import parse_scheme
from bitplan.solvers.effort import Effort
from bitplan.solvers.solution import Solution, Status

OPTIONS = {name: {word for each in parameters_of(verb) for word in each.opts} for name, verb in COMMANDS.items()}
READERS = {  # a verb -> its words, with BAD for the profile that it reads and OUT for what it writes
    "merge": "BAD BAD --out OUT", "cost": "BAD --out OUT", "check": "BAD scenes", "solve": "BAD --out OUT",
    "sweep": "BAD --out OUT", "verify": "PLAN BAD", "predict": "PLAN BAD", "why": "PLAN BAD unet.conv_in",
    "inspect": "PLAN --profile BAD", "explore": "BAD", "export": "PLAN --to torchao --out OUT --model BAD",
}  # fmt: skip


def foreign(text: str, command: str) -> set[str]:
    """The options in a text that neither the command nor a command that the text names has."""
    named = {
        command,
        *re.findall(r"`bitplan (\w+)", text),
        *re.findall(r"\b(profile|solve) (?:again|with|by|on)", text),
    }
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - set().union(
        *(OPTIONS.get(name, set()) for name in named)
    )


def test_what_is_foreign() -> None:
    assert foreign("choose another --out", "verify") == {"--out"} == foreign("x; take --out, --prove", "verify")
    assert not foreign("choose another --out", "solve") | foreign("profile again with another --out", "verify")
    assert not foreign("name a file of `bitplan profile --out`", "why") and foreign("this profile: --out", "why")


def bad_file(kind: str, path: Path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "other database":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE t (a)")
    elif kind == "damaged":
        path.write_bytes(b"SQLite format 3\0" + b"\0" * 200)
    elif kind == "text":
        path.write_text("SQLit, but no profile\n" * 100)
    elif kind == "empty":
        path.touch()


@pytest.mark.parametrize("kind", ["text", "other database", "damaged", "folder", "empty", "missing"])
def test_a_file_that_is_no_profile(kind: str, tmp_path: Path) -> None:
    bad_file(kind, tmp_path / "bad.profile")
    places = {"BAD": str(tmp_path / "bad.profile"), "OUT": str(tmp_path / "out"), "PLAN": "scenes@12%"}
    for command, words in READERS.items():
        arguments = [places.get(word, word) for word in words.split()]
        done = CliRunner().invoke(main, [command, *arguments])
        assert done.exit_code == 2 and done.stderr.startswith("bitplan: "), (command, done.stderr)
        assert not foreign(done.stderr, command), (command, done.stderr)


def test_a_verb_that_writes_a_profile_advises_its_own_option(tmp_path: Path) -> None:
    bad_file("other database", tmp_path / "p.profile")
    with pytest.raises(ValueError, match="p.profile: this is not a profile; choose another --out"):
        open_profile(tmp_path / "p.profile", "a")
    with pytest.raises(ValueError, match="this is not a profile; name a file that `bitplan profile` wrote"):
        open_profile(tmp_path / "p.profile")


def own_subject() -> Subject:
    return Subject({"net": nn.Sequential(nn.Linear(1, 1))}, lambda *_: torch.zeros(1))


DEEP: list[tuple[Callable[[], object], str]] = [  # what raises, and verbs that may come there
    (lambda: conditions_of(Subject({"net": nn.Linear(1, 1)}, lambda *_: torch.zeros(1)), None, 1), "bench explore"),
    (lambda: built_in_prompts(False, len(GENERAL) + 1), "bench"),
    (lambda: load_subject(typed(f"{__name__}:own_subject"), Generation(), Weights("bfloat16")), "evaluate check"),
    (lambda: check_fingerprint(plan_in("scenes@12%"), "0" * 64), "sweep solve explore"),
    (lambda: check_somewhere(parse_scheme("w4a4"), "linear"), "bench"),
    (lambda: check_solved(None, Solution(Status.INTERRUPTED, None, 0.0, "late", 1.0, "x"), Effort(1.0)), "sweep"),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(DEEP)))
def test_what_several_verbs_come_to(place: int) -> None:
    raises, commands = DEEP[place]
    with pytest.raises(ValueError, match="--") as caught:
        raises()
    for command in commands.split():
        assert not foreign(str(caught.value), command), caught.value
