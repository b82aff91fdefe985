"""A data file never runs code: whatever a stranger's profile, plan or sweep names, no verb imports it unasked."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.page.painter import PaintOptions
from bitplan.planner.page.serve import state_of
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.verbs import VERBS
from tests import tiny

MARK = "imported.txt"
CODE = f"open({MARK!r}, 'w').close()\ndef made(): pass\ndef tone(full, variant): return (full - variant)[:, 0, 0, 0]\n"


@pytest.fixture
def stranger(
    profile: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Files of a stranger that name a module of the current folder, which leaves a mark when it is imported."""
    (tmp_path / "strange.py").write_text(CODE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])  # as `python -m bitplan` has it
    with sqlite3.connect(profile) as db:
        parts = {key: json.loads(text) for key, text in db.execute("SELECT key, value FROM header")}
        parts["model"]["name"], parts["settings"]["metrics"] = "strange:made", ["strange:tone"]
        db.executemany("UPDATE header SET value = ? WHERE key = ?", [(json.dumps(v), k) for k, v in parts.items()])
    places = {"at": tmp_path, "plan": tmp_path / "p.plan.yaml", "clip": str(clip_folder)}
    files = SimpleNamespace(profile=profile, pipeline=str(tiny_folder), **places)
    bitplan.solve(profile, files.plan, memory="40%")
    assert "strange:made" in files.plan.read_text() and "strange:tone" in files.plan.read_text()
    yield files
    sys.modules.pop("strange", None)


def paint_in_the_explorer(files: Any, trust: bool = False) -> None:
    """What the page's button does. The picture fails with the error that the page shows."""
    state = state_of(files.profile, files.at, PaintOptions(trust=trust))
    state.painter._run(lambda: bitplan.solve(files.profile, files.at / "q.yaml", memory="40%"), "x", 0)
    raise UserError(state.painter.picture.error)


CALLS: dict[str, Callable[[Any], object]] = {  # every verb, with names that the user typed and files of the stranger
    "profile": lambda f: bitplan.profile(f.pipeline, f.profile, **tiny.SETTINGS),
    "merge": lambda f: bitplan.merge([f.profile, f.profile], f.at / "m.profile"),
    "import_profile": lambda f: bitplan.import_profile("mixdq", f.at, f.at / "m.profile"),
    "cost": lambda f: bitplan.cost(f.profile, f.at / "c.profile", config=f.at / "none.json"),
    "check": lambda f: bitplan.check(f.profile, f.pipeline, sample=2),
    "solve": lambda f: bitplan.solve(f.profile, f.at / "q.yaml", memory="40%", rerank=f.pipeline, clip=f.clip),
    "sweep": lambda f: bitplan.sweep(f.profile, f.at / "RUN", points=2, images=1),
    "verify": lambda f: bitplan.verify(f.plan, f.profile),
    "predict": lambda f: bitplan.predict(f.plan, f.profile),
    "why": lambda f: bitplan.why(f.plan, f.profile, "unet.conv_in"),
    "apply": lambda f: bitplan.apply(load_pipeline(f.pipeline), f.plan),
    "restore": lambda f: bitplan.restore(bitplan.apply(load_pipeline(f.pipeline), f.plan)),
    "config": lambda f: bitplan.config(f.plan),
    "paint": lambda f: bitplan.paint(f.plan, f.pipeline, ["x"], f.at / "x.png", steps=1),
    "evaluate": lambda f: bitplan.evaluate([f.plan], f.pipeline, f.at / "e", count=2, clip=f.clip, steps=1),
    "bench": lambda f: bitplan.bench(f.plan, f.pipeline, pairs=1, against=["float32"]),
    "export": lambda f: bitplan.export(f.plan, "modelopt", f.at / "x.yaml"),
    "inspect": lambda f: bitplan.inspect(f.plan, f.profile),
    "doctor": lambda f: bitplan.doctor(),
    "explore": paint_in_the_explorer,
    "report": lambda f: (bitplan.sweep(f.profile, f.at / "R", points=2), bitplan.report([f.at / "R"], f.at / "r.html")),
}
REFUSE = ("check", "solve", "sweep", "explore")  # they would run what the profile names


def test_every_verb_is_tried() -> None:
    assert set(CALLS) == set(VERBS)


@pytest.mark.parametrize("verb", CALLS)
def test_no_verb_imports_what_a_file_names(verb: str, stranger: Any) -> None:
    try:
        CALLS[verb](stranger)
    except ValueError as refused:  # a UserError, or one of the packages' own
        text = str(refused)
        assert "\n" not in text
        if verb in REFUSE:
            assert f"{stranger.profile} names strange:" in text and "--trust" in text
    else:
        assert verb not in REFUSE
    assert not (stranger.at / MARK).exists() and "strange" not in sys.modules


TRUSTED: dict[str, Callable[[Any], object]] = {
    "check": lambda f: bitplan.check(f.profile, f.pipeline, sample=2, trust=True),
    "solve": lambda f: bitplan.solve(
        f.profile, f.at / "q.yaml", memory="40%", rerank=f.pipeline, clip=f.clip, trust=True
    ),
    "sweep": lambda f: bitplan.sweep(f.profile, f.at / "RUN", points=2, images=1, trust=True),
    "explore": lambda f: paint_in_the_explorer(f, trust=True),
}


@pytest.mark.parametrize("verb", REFUSE)
def test_a_trusted_file_is_run(verb: str, stranger: Any) -> None:
    if verb == "check":  # a fine-tune, or nothing is measured
        stranger.pipeline = str(tiny.save_pipeline(stranger.at / "tuned", seed=1))
    try:
        TRUSTED[verb](stranger)
    except ValueError as error:  # the stranger's pipeline is none, and the profile holds no losses of the metric
        assert "is a NoneType; give a bitplan.Subject" in str(error) or "holds no loss of" in str(error)
    assert (stranger.at / MARK).exists()


def test_what_is_typed_is_run_even_if_a_file_names_it_too(stranger: Any) -> None:
    with pytest.raises(UserError, match="strange:made is a NoneType"):
        bitplan.profile("strange:made", stranger.at / "new.profile")
    assert (stranger.at / MARK).exists()


def test_the_command_line_refuses_trusts_and_suggests_nothing_that_runs(stranger: Any, command_line: Any) -> None:
    done = command_line("solve", stranger.profile, "--memory", "40%", "--out", stranger.at / "q.yaml")
    assert done.exit_code == 0 and "strange:" not in done.stdout.replace("'", "").partition("next: ")[2]
    assert "PIPELINE --prompt" in done.stdout
    arguments = ["sweep", stranger.profile, "--images", "1", "--points", "2", "--out", stranger.at / "RUN"]
    done = command_line(*arguments)
    assert done.exit_code == 2 and "--trust" in done.stderr and done.stderr.count("\n") == 1
    assert not (stranger.at / "RUN").exists() and not (stranger.at / MARK).exists()
    assert command_line(*arguments, "--trust").exit_code == 2 and (stranger.at / MARK).exists()
