"""CBC as a separate process: the one on the path, or else the one that PuLP 3 includes."""

from __future__ import annotations

import atexit
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bitplan.solvers.effort import Deadline
from bitplan.solvers.programs.backends.base import (
    FAILED,
    INFEASIBLE,
    OPTIMAL,
    STOPPED,
    ProgramResult,
    attended,
    overdue,
)
from bitplan.solvers.programs.modelling import pulp

MODEL, ANSWER, LOG = "model.mps", "answer.txt", "log.txt"  # in a folder of their own
OPTIONS = ["integerTolerance 1e-9", "primalTolerance 1e-9", "increment 0"]
# With preprocessing, CBC 2.10 errs by more than its tolerances on budgets that are narrowly exceeded; without it, CBC
# crashes on some infeasible programs. So the first attempt is without, and a failure is repeated with it.
ATTEMPTS = ("preprocess off", "preprocess on")
_BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)
_VALUE = re.compile(r"^Objective value:\s+(\S+)", re.MULTILINE)
_LIMIT = re.compile(r"^Result - Stopped on (\w+)|Exiting on maximum (\w+)|^Stopped on (\w+)", re.MULTILINE)


def missing() -> str | None:
    """Return why CBC is not installed here, or None."""
    return None if _path() else "no cbc program is installed; install coinor-cbc or pulp[cbc]"


def place() -> str:
    """Return what is installed."""
    return str(_path())


def run(program: pulp.LpProblem, deadline: Deadline, gap: float) -> ProgramResult:
    """Solve in place and read CBC's own log, because PuLP keeps neither the bound nor the reason."""
    result = _attempt(program, deadline, gap, ATTEMPTS[0])
    return _attempt(program, deadline, gap, ATTEMPTS[1]) if result.state == FAILED and deadline.left() else result


def _attempt(program: pulp.LpProblem, deadline: Deadline, gap: float, option: str) -> ProgramResult:
    with tempfile.TemporaryDirectory(prefix="cbc") as folder:
        solver = pulp.COIN_CMD(path=_path(), gapRel=gap, gapAbs=0.0)
        variables, columns, rows, _ = program.writeMPS(str(Path(folder, MODEL)), rename=1)
        options = [f"sec {deadline.left()}", option, *OPTIONS, *solver.getOptions(), "solve", "printingOptions all"]
        words = [word for each in options for word in f"-{each}".split()]
        code, log = _ran([str(_path()), MODEL, *words, "-solution", ANSWER], Path(folder), deadline)
        if code is None:
            return ProgramResult(STOPPED, -math.inf, False, deadline.reason())
        answer = Path(folder, ANSWER)
        if code or not answer.exists():
            return ProgramResult(FAILED, -math.inf, False, f"CBC {_end(code)}{_last_words(log)}")
        status, values, _, _, _, sol_status = solver.readsol_MPS(str(answer), program, variables, columns, rows)
        program.assignVarsVals(values)
        program.assignStatus(status, sol_status)
        return result_of(status, sol_status, log)


def _ran(command: list[str], folder: Path, deadline: Deadline) -> tuple[int | None, str]:
    """Run the command in the folder and return its exit code, None where it was stopped, and what it printed.

    It never outlives this call, nor, on Linux, this process: the kernel kills it then. Names of files are relative to
    the folder, whose own path may hold spaces.
    """
    keeper = shutil.which("setpriv") if sys.platform == "linux" else None
    command = [keeper, "--pdeathsig", "KILL", *command] if keeper else command
    with Path(folder, LOG).open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output,
        )  # fmt: skip
    atexit.register(process.kill)  # for a call in a thread that ends with this process
    try:
        ended = attended(process.wait, overdue(deadline), process.kill)
        stopped = not ended or overdue(deadline)()
    finally:
        process.kill()
        process.wait()
        atexit.unregister(process.kill)
    return None if stopped else process.returncode, Path(folder, LOG).read_text("utf-8", "replace")


def _end(code: int) -> str:
    """Return how a process ended that gave no answer."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"failed with exit code {code}" if code else "wrote no answer"


def _last_words(log: str) -> str:
    """Return the end of what CBC printed, in brackets."""
    lines = [" ".join(line.split()) for line in log.splitlines() if line.strip()]
    return f" ({lines[-1][-200:]})" if lines else ""


def result_of(status: int, sol_status: int, log: str) -> ProgramResult:
    """Return the result, from PuLP's two statuses and CBC's log."""
    has_values = sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    bound = _number(_BOUND, log)
    if limit := _LIMIT.search(log):
        kind = next(filter(None, limit.groups()))
        return ProgramResult(STOPPED, bound, has_values, f"CBC reached its limit of {kind}")
    if status == pulp.LpStatusInfeasible:
        return ProgramResult(INFEASIBLE, math.inf, False, "CBC proved that the program is infeasible")
    if status == pulp.LpStatusOptimal and sol_status == pulp.LpSolutionOptimal:
        bound = bound if math.isfinite(bound) else _number(_VALUE, log)  # CBC logs no bound without branching
        return ProgramResult(OPTIMAL, bound, True, "CBC reached the requested gap")
    return ProgramResult(FAILED, -math.inf, has_values, f"CBC ended with: {pulp.LpStatus[status].lower()}")


def _number(pattern: re.Pattern[str], log: str) -> float:
    match = pattern.search(log)
    return float(match[1]) if match else -math.inf


def _path() -> str | None:
    bundled = getattr(getattr(pulp, "PULP_CBC_CMD", None), "pulp_cbc_path", None)
    return shutil.which("cbc") or (bundled if bundled and os.access(bundled, os.X_OK) else None)
