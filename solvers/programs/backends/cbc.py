"""CBC as a process of its own: the one on the path, or the one that PuLP 3 brings along."""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import pulp

from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE, OPTIMAL, STOPPED, ProgramResult

OPTIONS = ["integerTolerance 1e-9", "primalTolerance 1e-9", "increment 0"]


# CBC 2.10 preprocessing errs by more than its tolerances on budgets that are just missed; without it, it crashes on
# some programs that have no answer: so first without, then with.
ATTEMPTS = ("preprocess off", "preprocess on")
_BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)
_VALUE = re.compile(r"^Objective value:\s+(\S+)", re.MULTILINE)
_LIMIT = re.compile(r"^Result - Stopped on (\w+)|Exiting on maximum (\w+)|^Stopped on (\w+)", re.MULTILINE)


def missing() -> str | None:
    """Why CBC cannot run here, or None."""
    return None if _path() else "no cbc program is installed; install coinor-cbc or pulp[cbc]"


def run(program: pulp.LpProblem, time_limit: float, gap: float) -> ProgramResult:
    """Solve in place and read CBC's own log; PuLP keeps neither the bound nor the reason."""
    start = time.monotonic()
    answer = _attempt(program, time_limit, gap, ATTEMPTS[0])
    left = time_limit - (time.monotonic() - start)
    return _attempt(program, left, gap, ATTEMPTS[1]) if answer.state == FAILED and left > 0 else answer


def _attempt(program: pulp.LpProblem, time_limit: float, gap: float, option: str) -> ProgramResult:
    with tempfile.TemporaryDirectory(prefix="cbc") as folder:
        log = Path(folder) / "log.txt"
        options = [option, *OPTIONS]
        solver = pulp.COIN_CMD(
            path=_path(), msg=False, timeLimit=time_limit, gapRel=gap, gapAbs=0.0, options=options, logPath=str(log)
        )
        solver.tmpDir = folder
        try:
            program.solve(solver)
        except pulp.PulpSolverError as error:
            return ProgramResult(FAILED, -math.inf, False, f"CBC failed: {error}")
        return ended(program.status, program.sol_status, log.read_text())


def ended(status: int, sol_status: int, log: str) -> ProgramResult:
    """What happened, from PuLP's two statuses and CBC's log."""
    found = sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    bound = _number(_BOUND, log)
    if limit := _LIMIT.search(log):
        return ProgramResult(STOPPED, bound, found, f"CBC reached its limit of {next(filter(None, limit.groups()))}")
    if status == pulp.LpStatusInfeasible:
        return ProgramResult(INFEASIBLE, math.inf, False, "CBC proved that there is no answer")
    if status == pulp.LpStatusOptimal and sol_status == pulp.LpSolutionOptimal:
        bound = bound if math.isfinite(bound) else _number(_VALUE, log)  # none: nothing was left open
        return ProgramResult(OPTIMAL, bound, True, "CBC closed the gap asked for")
    return ProgramResult(FAILED, -math.inf, found, f"CBC ended with: {pulp.LpStatus[status].lower()}")


def _number(pattern: re.Pattern[str], log: str) -> float:
    said = pattern.search(log)
    return float(said[1]) if said else -math.inf


def _path() -> str | None:
    bundled = getattr(getattr(pulp, "PULP_CBC_CMD", None), "pulp_cbc_path", None)
    return shutil.which("cbc") or (bundled if bundled and os.access(bundled, os.X_OK) else None)
