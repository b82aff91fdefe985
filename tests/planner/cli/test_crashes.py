"""Whatever is raised, wherever: one line, an exit code of its own, and a report of what was not foreseen."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import bitplan
from bitplan.planner import crash
from bitplan.planner.cli import completion, main, output
from bitplan.planner.cli.output import Ended, Printed, guarded
from bitplan.planner.errors import BAD_INPUT, CRASHED, UNREAD, CallError, UserError
from bitplan.planner.interrupts import INTERRUPTED
from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.planner.progress import Course
from bitplan.planner.texts import cause_of, one_line, system_reason


class WithoutTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Panic(BaseException):
    """As libraries in Rust raise."""


def deep() -> None:
    deep()


def raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: object, **__: object) -> Any:
        raise error

    return run


UNFORESEEN = [KeyError("x"), OverflowError("too large"), RuntimeError("two\nlines"), SystemExit(0),
              ValueError("of a library"), WithoutTextError(), ImportError("torch"),
              Panic("index out of bounds")]  # fmt: skip


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["bitplan.planner.views.inspect.inspect_file", "bitplan.planner.cli.output._print",
                                   "bitplan.planner.cli.options.values_of"])  # fmt: skip
def test_what_is_not_foreseen_is_one_line_and_a_report(
    error: BaseException, place: str, command_line: Any, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, raising(error))
    result = command_line("inspect", "scenes@12%")
    assert result.exit_code == CRASHED
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"bitplan: inspect scenes@12%: {type(error).__name__}") and "None" not in line
    (report,) = reports.iterdir()
    assert line.endswith(f"the full report is in {report}")
    text = report.read_text()
    assert (
        "Traceback" in text and "in run" in text and "command line: " in text and f"torch {torch.__version__}" in text
    )
    assert report.stat().st_mode & 0o077 == 0


def test_endless_recursion_is_one_line(command_line: Any, reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitplan.planner.views.inspect.inspect_file", lambda *_: deep())
    result = command_line("inspect", "scenes@12%")
    assert result.exit_code == CRASHED and result.stderr.count("\n") == 1 and "RecursionError" in result.stderr


def test_the_report_itself_never_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(crash.tempfile, "mkstemp", raising(OSError(28, "No space left on device")))
    with pytest.raises(Ended), guarded("solve x"):
        raise KeyError("x")
    assert (
        capsys.readouterr().err
        == "bitplan: solve x: KeyError: 'x'; no report could be written: there is no room for it\n"
    )


def test_the_phase_of_a_run_is_named(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended), guarded("profile x"), Course("profile", False).phase("calibrate"):
        raise KeyError("y")
    assert "profile x: KeyError: 'y' (phase: calibrate); " in capsys.readouterr().err


def test_an_interrupt_is_one_line_wherever_it_comes(command_line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("bitplan.planner.cli.options.parameters_of", "bitplan.planner.views.inspect.inspect_file"):
        monkeypatch.setattr(place, raising(KeyboardInterrupt()))
        main.commands["inspect"].__dict__.pop("params", None)  # built once, and kept
        result = command_line("inspect", "scenes@12%")
        (line,) = result.stderr.strip().splitlines()
        assert result.exit_code == INTERRUPTED and line == "bitplan: interrupted; nothing was written"
        monkeypatch.undo()


def test_options_that_cannot_be_built_are_one_line(
    command_line: Any, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitplan.planner.cli.options.parameters_of", raising(ModuleNotFoundError("No module 'torch'")))
    main.commands["predict"].__dict__.pop("params", None)
    result = command_line("predict", "a", "b")
    assert (
        result.exit_code == CRASHED and "ModuleNotFoundError" in result.stderr and "install it again" in result.stderr
    )
    assert result.stderr.count("\n") == 1


def test_completion_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitplan.planner.profiles.profile.open_profile", raising(KeyError("x")))
    context = click.Context(main.commands["solve"])
    context.params["profile"] = "x.profile"
    assert completion.layers(context, context.command.params[0], "unet") == []


VALUES = (
    "[1",
    "{",
    "'",
    "!!int x",
    "!!timestamp 2024-99-99",
    "!!python/object:os.system x",
    "[" * 3000,
    "&a [*a, *b]",
    "\x00",
)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_call_argument_that_is_no_yaml_is_bad_input(command_line: Any, tmp_path: Path, value: str) -> None:
    result = command_line("apply", "scenes@12%", "scenes", "--out", tmp_path / "x.png", "--call", f"height={value}")
    assert result.exit_code == BAD_INPUT and "is not a YAML value" in result.stderr
    assert (
        result.stderr.startswith(("bitplan: '--call height=", 'bitplan: "--call height='))
        and result.stderr.count("\n") == 1
    )


CALLS = [RuntimeError(), RuntimeError("mat1 and\nmat2"), KeyError("prompt"), SystemExit(3),
         ValueError("`height` has to be divisible by 8"), Panic("index out of bounds")]  # fmt: skip


@pytest.mark.parametrize("error", CALLS, ids=lambda error: type(error).__name__)
def test_what_a_pipeline_raises_names_the_call(error: BaseException) -> None:
    subject = Subject({"net": torch.nn.Linear(1, 1)}, raising(error), name="mine")
    with pytest.raises(CallError) as refused:
        run_subject(subject, ["a red circle", "a cat"], 7)
    says = str(refused.value)
    assert says.startswith("mine, called with 2 conditions, the first 'a red circle' and seed 7, fails with ")
    assert cause_of(error) in says and "\n" not in says
    assert refused.value.__cause__ is error


@pytest.mark.parametrize("error", [UserError("too small"), KeyboardInterrupt()], ids=["own", "interrupt"])
def test_own_errors_and_interrupts_pass_through(error: BaseException) -> None:
    subject = Subject({"net": torch.nn.Linear(1, 1)}, raising(error))
    with pytest.raises(type(error)) as passed:
        run_subject(subject, ["a"], 0)
    assert passed.value is error


def test_a_module_that_exits_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Any) -> None:
    (tmp_path / "exits_at_once.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    result = command_line("profile", "exits_at_once:subject", "--out", "x.profile", "-q")
    assert result.exit_code == BAD_INPUT and "cannot load exits_at_once:subject: SystemExit: 0; " in result.stderr


def test_an_error_always_has_a_reason() -> None:
    assert one_line(RuntimeError()) == "RuntimeError" == cause_of(RuntimeError("  "))
    assert one_line(KeyError("a")) == "KeyError: 'a'" == cause_of(KeyError("a"))
    assert one_line(WithoutTextError()) == "WithoutTextError" == cause_of(WithoutTextError())
    assert cause_of(RuntimeError("a\nb")) == "RuntimeError: a b" and one_line("") == ""
    assert system_reason(OSError("no hub")) == "no hub" and system_reason(OSError()) == "OSError"


def test_a_pipeline_that_fails_without_a_word_names_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", raising(AssertionError()))
    with pytest.raises(UserError, match="cannot load the pipeline 'scenes': AssertionError; name"):
        bitplan.planner.pipelines.sources.load_pipeline("scenes")


def run(script: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "TMPDIR": str(options.pop("folder"))} | options
    command = ["bash", "-c", script.replace("bitplan", f"{sys.executable} -m bitplan")]
    return subprocess.run(command, capture_output=True, env=environment, timeout=60)


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("bitplan inspect scenes@12% | true; exit ${PIPESTATUS[0]}", UNREAD, rb""),
        ("bitplan inspect scenes@12% > /dev/full", BAD_INPUT, rb"bitplan: inspect scenes@12%: No space left.*\n"),
        ("bitplan inspect scenes@12% >&- 2>&- <&-", 0, rb""),
        ("bitplan profile scenes --out $TMPDIR/no/x >&- 2>&- <&-", BAD_INPUT, rb""),
        ("PYTHONIOENCODING=ascii bitplan inspect scenes@12% > /dev/null", 0, rb""),
        ("PYTHONIOENCODING=utf-8 bitplan inspect $'\\xff\\u00e9'", BAD_INPUT, rb"bitplan: cannot read .*path\n"),
    ],
)  # fmt: skip
def test_streams_of_every_kind(script: str, code: int, says: bytes, tmp_path: Path) -> None:
    done = run(script, folder=tmp_path)
    assert done.returncode == code and re.fullmatch(says, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_broken_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    done = run("bitplan apply scenes@12% scenes --out x.png", folder=tmp_path, PYTHONPATH=path)
    assert done.returncode == BAD_INPUT and done.stderr.count(b"\n") == 1, done.stderr
    assert b"libtorch_cpu.so" in done.stderr and b"None" not in done.stderr


def test_names_of_any_bytes_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(output, "_document", lambda printed: json.dumps("\udcff"))
    with pytest.raises(SystemExit):
        main(["--version"])
    output._print(Printed(text="\udcff \ud800 ·"))
    stream.flush()
    assert stream.buffer.getvalue().endswith(b"\xff \\ud800 \xc2\xb7\n")  # type: ignore[attr-defined]
