"""CBC as a separate process: the one on the path, or else the one that PuLP 3 includes."""

from __future__ import annotations

import atexit
import math
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pulp

from bitplan.solvers.effort import Deadline
from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE, OPTIMAL, STOPPED, ProgramResult, attended

OPTIONS = ["integerTolerance 1e-9", "primalTolerance 1e-9", "increment 0"]
# With preprocessing, CBC 2.10 errs by more than its tolerances on budgets that are narrowly exceeded; without it, CBC
# crashes on some infeasible programs. So the first attempt is without, and a failure is repeated with it.
ATTEMPTS = ("preprocess off", "preprocess on")
_BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)
_VALUE = re.compile(r"^Objective value:\s+(\S+)", re.MULTILINE)
_LIMIT = re.compile(r"^Result - Stopped on (\w+)|Exiting on maximum (\w+)|^Stopped on (\w+)", re.MULTILINE)


def missing() -> str | None:
    """Return why CBC cannot run here, or None."""
    return None if _path() else "no cbc program is installed; install coinor-cbc or pulp[cbc]"


def run(program: pulp.LpProblem, deadline: Deadline, gap: float) -> ProgramResult:
    """Solve in place and read CBC's own log, because PuLP keeps neither the bound nor the reason."""
    result = _attempt(program, deadline, gap, ATTEMPTS[0])
    return _attempt(program, deadline, gap, ATTEMPTS[1]) if result.state == FAILED and deadline.left() else result


def _attempt(program: pulp.LpProblem, deadline: Deadline, gap: float, option: str) -> ProgramResult:
    with tempfile.TemporaryDirectory(prefix="cbc") as folder:
        model, answer, log = (Path(folder) / name for name in ("model.mps", "answer.txt", "log.txt"))
        solver = pulp.COIN_CMD(path=_path(), gapRel=gap, gapAbs=0.0)
        variables, columns, rows, _ = program.writeMPS(str(model), rename=1)
        options = [f"sec {deadline.left()}", option, *OPTIONS, *solver.getOptions(), "solve", "printingOptions all"]
        words = [word for each in options for word in f"-{each}".split()]
        code = _ran([str(_path()), str(model), *words, "-solution", str(answer)], log, deadline)
        if code is None:
            return ProgramResult(STOPPED, -math.inf, False, deadline.reason())
        if code or not answer.exists():
            return ProgramResult(FAILED, -math.inf, False, f"CBC failed with exit code {code}")
        status, values, _, _, _, sol_status = solver.readsol_MPS(str(answer), program, variables, columns, rows)
        program.assignVarsVals(values)
        program.assignStatus(status, sol_status)
        return result_of(status, sol_status, log.read_text())


def _ran(command: list[str], log: Path, deadline: Deadline) -> int | None:
    """Run the command and return its exit code; None where it was told to stop. It never outlives this call."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    atexit.register(process.kill)  # for a call in a thread that ends with this process
    try:
        attended(process.wait, deadline.stopped, process.kill)
    finally:
        process.kill()
        process.wait()
        atexit.unregister(process.kill)
    return None if deadline.stopped() else process.returncode


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
