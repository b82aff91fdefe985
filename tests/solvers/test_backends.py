"""A backend that is installed but broken is passed over, and the reason is told."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import psutil
import pulp
import pytest

from bitplan.solvers.effort import Deadline, Effort
from bitplan.solvers.programs import backends
from bitplan.solvers.programs.backends import BACKENDS, BackendError, backend_named, base, cbc, highs
from bitplan.solvers.programs.backends.base import FAILED, ProgramResult
from bitplan.solvers.solution import Status
from bitplan.solvers.strategies import strategy_named
from tests.solvers.oracle import best
from tests.solvers.questions.test_answers import middling

HIGHS, CBC = BACKENDS
ANSWER = 'while [ "$1" != -solution ]; do shift; done; '  # of a script that is called as CBC is; its name is then $2

# what a cbc does -> what is said of it
BROKEN = {
    "exit 3": "CBC failed with exit code 3",
    "echo no licence; exit 1": "CBC failed with exit code 1 (no licence)",
    "kill -SEGV $$": "CBC was killed by SIGSEGV",
    "echo hello": "CBC wrote no answer (hello)",
    ANSWER + 'echo "1 2 3 garbage" > "$2"': "CBC ended with: ",
    ANSWER + "printf '\\377\\376' > \"$2\"": "",
    "while :; do sleep 1; done": "it was told to stop",
}


@pytest.fixture(autouse=True)
def afresh() -> Any:
    backends._trial.cache_clear()
    yield
    backends._trial.cache_clear()


@pytest.fixture
def fake_cbc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(script: str, first: str = "#!/bin/sh", mode: int = 0o755) -> Path:
        path = tmp_path / "bin" / "cbc"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{first}\n{script}\n")
        path.chmod(mode)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
        return path

    return make


def broken_highs(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    stub = types.ModuleType("highspy")
    vars(stub).update(attributes)
    monkeypatch.setitem(sys.modules, "highspy", stub)


@pytest.mark.parametrize("script", BROKEN)
def test_a_broken_cbc_is_told(script: str, fake_cbc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "TRIAL", 0.3)
    path = fake_cbc(script)
    with pytest.raises(BackendError) as refused:
        backend_named("cbc")
    says = str(refused.value)
    assert says.startswith(f"no solver backend can run (cbc: {path} does not work: ") and BROKEN[script] in says
    assert "install it again" in says and "\n" not in says


@pytest.mark.parametrize("first", ["#!/no/such/interpreter", "\x7fELF"])
def test_a_cbc_that_does_not_start_is_told(first: str, fake_cbc: Any) -> None:
    assert "does not work" in str(fake_cbc("", first) and CBC.missing())


def test_a_file_that_may_not_be_run_is_none(fake_cbc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_cbc("", mode=stat.S_IRUSR)
    assert cbc.place() != str(path)


def test_no_backend_at_all_names_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(cbc, "_path", lambda: None)
    broken_highs(monkeypatch)
    with pytest.raises(BackendError, match=r"highs: highspy does not work: .*; cbc: no cbc program is installed"):
        backend_named()


@pytest.mark.skipif(CBC.missing() is not None, reason="there is no CBC")
@pytest.mark.parametrize("stage", ["import", "run"])
def test_a_broken_highs_is_passed_over(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it fails at once, its reason is a note; where it fails later, in the reason of the result."""

    def fail(*_: object) -> ProgramResult:
        raise RuntimeError("libhighs.so: undefined symbol")

    problem = middling(6, 3)
    if stage == "import":
        monkeypatch.setattr(highs, "run", fail)
        assert "highs: highspy does not work: RuntimeError: libhighs.so: undefined symbol" in backend_named().note
        assert backend_named().name == "cbc"
    else:
        assert HIGHS.missing() is None
        monkeypatch.setattr(backends, "_trial", lambda *_: None)
        monkeypatch.setattr(highs, "run", fail)
    solution = strategy_named("ilp").run(problem, Effort())
    assert solution.status is Status.OPTIMAL and "undefined symbol" in solution.stopped
    assert solution.objective == pytest.approx(best(problem))


@pytest.mark.parametrize("name", [each.name for each in BACKENDS])
@pytest.mark.parametrize("place", ["a b", "é'\"$x"])
def test_the_folder_for_temporary_files_may_have_any_name(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / place
    folder.mkdir()
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if (reason := next(each for each in BACKENDS if each.name == name).missing()) is not None:
        assert "is installed" in reason or "not installed" in reason  # not that it does not work
        pytest.skip(reason)
    problem = middling(6, 3)
    solution = strategy_named("ilp").run(problem, Effort(backend=name))
    assert solution.objective == pytest.approx(best(problem)) and not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(cbc, "_path", lambda: "/bin/true")
    assert "No such file or directory" in str(CBC.missing())


def test_one_that_does_not_end_is_stopped(fake_cbc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that CBC ignores is kept all the same."""
    fake_cbc("while :; do sleep 1; done")
    monkeypatch.setattr(base, "OVERTIME", 0.1)
    program = pulp.LpProblem("one", pulp.LpMinimize)
    program.setObjective(program.add_variable("x", 1, 2) * 1.0)
    assert cbc.run(program, Deadline(time.monotonic() + 0.1), 0.0).state != FAILED


@pytest.mark.parametrize(
    ("content", "fault"),
    [("raise ImportError('libhighs.so: no such file')", "ImportError: libhighs.so: no such file"),
     ("class Highs: pass", "AttributeError: ")],
)  # fmt: skip
def test_a_highspy_that_cannot_be_used_is_passed_over(content: str, fault: str, tmp_path: Path) -> None:
    """PuLP reads names of highspy, and so fails itself where there are none."""
    (tmp_path / "highspy.py").write_text(content)
    code = "from bitplan.solvers.programs.backends import *; b = backend_named(); print(b.name, b.note)"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.stdout.decode().startswith(f"cbc highs: highspy does not work: {fault}"), done.stderr


SOLVING = """
import pulp
from bitplan.solvers.effort import Deadline
from bitplan.solvers.programs.backends import cbc
program = pulp.LpProblem("one", pulp.LpMinimize)
program.setObjective(program.add_variable("x", 1, 2) * 1.0)
cbc.run(program, Deadline(), 0.0)
"""


@pytest.mark.skipif(shutil.which("setpriv") is None or sys.platform != "linux", reason="needs Linux and setpriv")
def test_cbc_ends_with_the_process_that_started_it(fake_cbc: Any, tmp_path: Path) -> None:
    fake_cbc("echo $$ > pid.part && mv pid.part pid && exec sleep 600".replace("pid", str(tmp_path / "pid")))
    parent = subprocess.Popen([sys.executable, "-c", SOLVING])
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    child = psutil.Process(int((tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    child.wait(60)
