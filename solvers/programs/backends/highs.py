"""HiGHS through highspy, in this process."""

from __future__ import annotations

import importlib.util
import math

import pulp

from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE, OPTIMAL, STOPPED, ProgramResult

OPTIONS: dict[str, object] = {
    "mip_feasibility_tolerance": 1e-9,
    "primal_feasibility_tolerance": 1e-9,
    "small_matrix_value": 1e-12,
    # Its presolve, from 1.13 to at least 1.15.1, errs on "exactly one" rows beside tight budgets, on which all of our
    # programs stand: it denies answers that there are (HiGHS issue 3216) and, whichever rule is off, may call optimal
    # what is not. Without it our programs, reduced as they are, take about as long.
    "presolve": "off",
}


def missing() -> str | None:
    """Why HiGHS cannot run here, or None."""
    return None if importlib.util.find_spec("highspy") else "highspy is not installed; pip install highspy"


def run(program: pulp.LpProblem, time_limit: float, gap: float) -> ProgramResult:
    """Solve in place and read HiGHS's own status and bound."""
    import highspy

    program.solve(pulp.HiGHS(msg=False, timeLimit=time_limit, gapRel=gap, gapAbs=0.0, **OPTIONS))
    model = program.solverModel
    status, info = model.getModelStatus(), model.getInfo()
    has_values = info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
    bound = info.mip_dual_bound if math.isfinite(info.mip_dual_bound) else -math.inf
    kinds = highspy.HighsModelStatus
    if status == kinds.kOptimal and has_values:
        return ProgramResult(OPTIMAL, bound, True, "HiGHS closed the gap asked for")
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return ProgramResult(INFEASIBLE, math.inf, False, "HiGHS proved that there is no answer")
    state = STOPPED if status in (kinds.kTimeLimit, kinds.kInterrupt, kinds.kIterationLimit) else FAILED
    return ProgramResult(state, bound, has_values, f"HiGHS ended with: {model.modelStatusToString(status).lower()}")
