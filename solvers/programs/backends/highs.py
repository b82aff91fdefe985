"""HiGHS in this process, through highspy."""

from __future__ import annotations

import importlib.util
import math
import threading
from typing import Any

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

# Where HiGHS asks whether to end: between nodes, and inside one linear program, of which the first may take minutes.
INTERRUPTS = ("kCallbackMipInterrupt", "kCallbackSimplexInterrupt", "kCallbackIpmInterrupt")
OPTIONS: dict[str, object] = {
    "mip_feasibility_tolerance": 1e-9,
    "primal_feasibility_tolerance": 1e-9,
    "small_matrix_value": 1e-12,
    # The presolve of HiGHS, from 1.13 to at least 1.15.1, errs on "exactly one" rows beside tight budgets, which all of
    # our programs have: it reports feasible programs as infeasible (HiGHS issue 3216) and, whichever rule is off, may
    # report a suboptimal answer as optimal. Our programs are reduced already and take about as long without it.
    "presolve": "off",
}


def missing() -> str | None:
    """Return why HiGHS is not installed here, or None."""
    return None if _is_installed() else "highspy is not installed; pip install highspy"


def place() -> str:
    """Return what is installed."""
    return "highspy"


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("highspy") is not None
    except ValueError:  # a module without a specification
        return True


def run(program: pulp.LpProblem, deadline: Deadline, gap: float) -> ProgramResult:
    """Solve in place and read the status and bound from HiGHS itself."""
    import highspy

    halt = threading.Event()

    def check(kind: object, message: object, read: object, write: Any, own: object) -> None:
        if halt.is_set():
            write.user_interrupt = True

    solver = pulp.HiGHS(
        msg=False, timeLimit=deadline.left(), gapRel=gap, gapAbs=0.0, callbackTuple=(check, None),
        callbacksToActivate=[getattr(highspy.cb.HighsCallbackType, name) for name in INTERRUPTS], **OPTIONS,
    )  # fmt: skip
    if not attended(lambda: program.solve(solver), overdue(deadline), halt.set):
        return ProgramResult(STOPPED, -math.inf, False, deadline.reason())
    model = program.solverModel
    status, info = model.getModelStatus(), model.getInfo()
    has_values = info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
    bound = info.mip_dual_bound if math.isfinite(info.mip_dual_bound) else -math.inf
    kinds = highspy.HighsModelStatus
    if status == kinds.kOptimal and has_values:
        return ProgramResult(OPTIMAL, bound, True, "HiGHS reached the requested gap")
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return ProgramResult(INFEASIBLE, math.inf, False, "HiGHS proved that the program is infeasible")
    state = STOPPED if status in (kinds.kTimeLimit, kinds.kInterrupt, kinds.kIterationLimit) else FAILED
    return ProgramResult(state, bound, has_values, f"HiGHS ended with: {model.modelStatusToString(status).lower()}")
