"""Where verbs may write: never over an input, over a file of another kind, or in the place of a device or a pipe."""

from __future__ import annotations

import inspect
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.files import FOLDER, check_place
from bitplan.planner.verbs import VERBS
from bitplan.planner.verbs.entry import rows_of
from bitplan.plans.files import KINDS, PathError, written
from bitplan.plans.plan import load_plan

HERE: dict[str, Callable[[Any, Path], object]] = {  # every verb that writes, with its inputs
    "profile": lambda f, out: bitplan.profile(f["pipeline"], out, prompts=f["text"]),
    "merge": lambda f, out: bitplan.merge([f["profile"], f["profile"]], out),
    "import_profile": lambda f, out: bitplan.import_profile("mixdq", f["folder"], out),
    "cost": lambda f, out: bitplan.cost(f["profile"], out),
    "check": lambda f, out: bitplan.check(f["profile"], f["pipeline"], plan=f["plan"], out=out),
    "solve": lambda f, out: bitplan.solve(f["profile"], out, uniform="w8a8"),
    "sweep": lambda f, out: bitplan.sweep(f["profile"], out, points=2),
    "paint": lambda f, out: bitplan.paint(f["plan"], f["pipeline"], ["x"], out),
    "evaluate": lambda f, out: bitplan.evaluate([f["plan"]], f["pipeline"], out),
    "bench": lambda f, out: bitplan.bench(f["plan"], f["pipeline"], out=out),
    "export": lambda f, out: bitplan.export(f["plan"], "modelopt", out, model=f["profile"]),
    "report": lambda f, out: bitplan.report([f["run"]], out),
}
READ = {  # verb -> its inputs in HERE
    "profile": ("pipeline", "text"), "merge": ("profile",), "import_profile": ("folder",), "cost": ("profile",),
    "check": ("profile", "pipeline", "plan"), "solve": ("profile",), "sweep": ("profile",),
    "paint": ("plan", "pipeline"), "evaluate": ("plan", "pipeline"), "bench": ("plan", "pipeline"),
    "export": ("plan", "profile"), "report": ("run",),
}  # fmt: skip


def kind_written(verb: str) -> str | None:
    rows = rows_of(verb, dict.fromkeys(inspect.signature(VERBS[verb].function).parameters))
    return next((row.writes for row in rows.values() if row.writes), None)


@pytest.fixture
def files(profile: Path, tiny_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """One existing file of each kind, and two folders."""
    made = {kind: tmp_path / f"a.{kind}" for kind in ("page", "json", "text", "plan")}
    made |= {"profile": profile, "picture": tmp_path / "a.png", "binary": tmp_path / "a.safetensors"}
    made["page"].write_text("\n<!DOCTYPE html>\n<p>mine</p>\n")
    made["json"].write_text('{"mine": 1}\n')
    made["text"].write_text("my notes\n")
    bitplan.solve(profile, made["plan"], uniform="w8a8")
    made["plan"].write_text("# my comment\n" + made["plan"].read_text())
    Image.new("RGB", (2, 2)).save(made["picture"])
    save_file({"mine": torch.zeros(3)}, made["binary"])
    pipeline, folder = (Path(shutil.copytree(tiny_folder, tmp_path / name)) for name in ("pipeline", "folder"))
    (run := tmp_path / "run").mkdir()
    (run / "sweep.json").write_text("{}")
    return made | {"pipeline": pipeline, "folder": folder, "run": run}


def test_every_verb_that_writes_is_tried() -> None:
    assert set(HERE) == set(READ) == {verb for verb in VERBS if kind_written(verb)}
    assert {kind_written(verb) for verb in HERE} <= {*KINDS, FOLDER}


@pytest.mark.parametrize("verb", HERE)
def test_an_input_is_never_written_over(verb: str, files: dict[str, Path], tmp_path: Path) -> None:
    for name in READ[verb]:
        for out in (files[name], tmp_path / "." / ".." / tmp_path.name / files[name].name):
            before = out.read_bytes() if out.is_file() else sorted(out.iterdir())
            with pytest.raises(UserError, match=", which is read; choose another --out"):
                HERE[verb](files, out)
            assert before == (out.read_bytes() if out.is_file() else sorted(out.iterdir()))
        os.symlink(files[name], tmp_path / f"link-{name}")
        with pytest.raises(UserError, match=", which is read; choose another --out"):
            HERE[verb](files, tmp_path / f"link-{name}")


@pytest.mark.parametrize("verb", HERE)
def test_a_file_of_another_kind_stays(verb: str, files: dict[str, Path], tmp_path: Path) -> None:
    kind = kind_written(verb)
    replaceable = KINDS[kind][1] if kind in KINDS else ()
    for found in KINDS:
        if found not in replaceable:
            out = Path(shutil.copy(files[found], tmp_path / f"other.{files[found].suffix}"))
            before = out.read_bytes()
            with pytest.raises(ValueError, match=r"^(?!.*\n).*would be written.*; choose another --out$"):
                HERE[verb](files, out)
            assert out.read_bytes() == before
    if kind != FOLDER:
        with pytest.raises(PathError, match="is a folder, and .* would be written"):
            HERE[verb](files, files["folder"] / "unet")
        with pytest.raises(UserError, match="the folder of .* does not exist"):
            HERE[verb](files, tmp_path / "gone" / "x")
    else:
        with pytest.raises(UserError, match="is the folder of a pipeline; choose another --out"):
            HERE[verb](files, files["folder"])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "profile"])
def test_its_own_kind_and_an_empty_file_are_replaced(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.x"
    empty.touch()
    for out in (files[kind], empty):
        with written(out, kind) as partial:
            assert partial.suffix == out.suffix
            partial.write_text("new")
        assert out.read_text() == "new"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("verb", HERE)
def test_a_pipe_or_a_device_stays_one(verb: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Profiles and folders are refused; what else is written would go into it. A socket takes nothing."""
    fifo, (ours, theirs) = tmp_path / "fifo", os.openpty()
    os.mkfifo(fifo)
    if kind_written(verb) in ("profile", FOLDER):
        for out in (fifo, Path(os.ttyname(theirs)), Path("/dev/stdout")):
            with pytest.raises(ValueError, match="choose another --out"):
                HERE[verb](files, out)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    os.close(ours)
    os.close(theirs)


def listening(fifo: Path) -> tuple[threading.Thread, list[bytes]]:
    os.mkfifo(fifo)
    heard: list[bytes] = []
    thread = threading.Thread(target=lambda: heard.append(fifo.read_bytes()), daemon=True)
    thread.start()
    return thread, heard


@pytest.mark.parametrize("verb", ["solve", "export"])
def test_a_pipe_takes_what_is_written(verb: str, files: dict[str, Path], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    thread, heard = listening(fifo)
    HERE[verb](files, fifo)
    thread.join(10)
    assert stat.S_ISFIFO(fifo.stat().st_mode) and not list(tmp_path.glob(".*"))
    (tmp_path / "heard").write_bytes(heard[0])
    HERE[verb](files, tmp_path / "written")
    assert heard[0] == (tmp_path / "written").read_bytes()
    with pytest.raises(PathError, match="takes one file, not fifo.1 too"):
        bitplan.solve(files["profile"], fifo, candidates=2)


def test_standard_output_takes_a_plan_and_goes_on(files: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bitplan", "solve", files["profile"], "--uniform", "w8a8", "--quiet", "--out"]
    for name in ("/dev/stdout", "/dev/fd/1"):
        with (tmp_path / "all.txt").open("wb") as file:
            subprocess.run([*command, name], stdout=file, check=True)
        plan, _, rest = (tmp_path / "all.txt").read_text().rpartition(f"{name}\n")
        (tmp_path / "read.yaml").write_text(plan)
        assert load_plan(tmp_path / "read.yaml") == load_plan(files["plan"]) and rest == ""


EXISTING = {"profile": "continued", "import_profile": "continued", "sweep": "continued", "merge": "refused",
            "cost": "refused"}  # verb -> what happens to what it wrote before; others replace it  # fmt: skip


@pytest.mark.parametrize("verb", HERE)
def test_one_policy_for_what_exists(verb: str, files: dict[str, Path], tmp_path: Path) -> None:
    rows = rows_of(verb, dict.fromkeys(inspect.signature(VERBS[verb].function).parameters))
    row = next(row for row in rows.values() if row.writes)
    assert row.continues == (EXISTING.get(verb) == "continued")
    if row.writes == FOLDER:
        return
    out = Path(shutil.copy(files[row.writes], tmp_path / f"mine{files[row.writes].suffix}"))
    if EXISTING.get(verb) == "refused":
        before = out.read_bytes()
        with pytest.raises(UserError, match="exists already, and a profile is never replaced; choose another --out"):
            HERE[verb]({**files, "profile": Path(shutil.copy(files["profile"], tmp_path / "in.profile"))}, out)
        assert out.read_bytes() == before
    else:
        check_place(out, row.writes, (), row.continues)


@pytest.mark.parametrize("verb", ["solve", "export"])
def test_the_same_command_replaces_its_file(verb: str, files: dict[str, Path], tmp_path: Path) -> None:
    HERE[verb](files, out := tmp_path / "out.file")
    before = out.read_bytes()
    HERE[verb](files, out)
    assert out.read_bytes() == before
