"""The same problems handed whole to other solvers: what the exact path is compared with."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

if sys.argv[1:2] == ["CP-SAT"]:  # before PuLP loads highspy, whose HiGHS hides the one that OR-tools needs
    import ortools.sat.python.cp_model  # noqa: F401

from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.programs import program
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.reduction.minima import minima


def naive(problem: Problem, limit: float) -> dict[str, Any]:
    """Solves the whole problem as one scaled PuLP program with CBC."""
    start = time.perf_counter()
    least, most = (
        minima(problem, problem.costs, problem.allowed)[0],
        minima(problem, -problem.costs, problem.allowed)[0],
    )
    whole = program.build(problem, problem.allowed, -math.fsum(most) - math.fsum(least))
    answer = program.run(problem, whole, backend_named("cbc"), Effort(limit).deadline(), 0.0)
    spent = time.perf_counter() - start
    objective = math.fsum(problem.costs[list(answer.picks)]) if answer.picks else None
    return {"seconds": spent, "objective": objective, "status": answer.result.state}


def cp_sat(problem: Problem, limit: float, gap: float = 1e-3) -> dict[str, Any]:
    """Solves with OR-tools CP-SAT on numbers that are rounded to integers."""
    from ortools.sat.python import cp_model

    start = time.perf_counter()
    model = cp_model.CpModel()
    x = [model.new_bool_var("") for _ in range(problem.size)]
    _groups(problem, x, model.add_exactly_one, lambda same, other: model.add(sum(same) == sum(other)))
    for budget in problem.budgets:
        values = problem.column(budget.column)
        unit = 1.0 if values.dtype.kind == "i" else 2**40 / float(budget.limit)
        rounded = [math.ceil(value * unit) for value in values.tolist()]
        model.add(cp_model.LinearExpr.weighted_sum(x, rounded) <= math.floor(float(budget.limit) * unit))
    scale = 2**40 / float(problem.costs.max())
    model.minimize(cp_model.LinearExpr.weighted_sum(x, np.rint(problem.costs * scale).astype(np.int64).tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds, solver.parameters.num_workers = limit, 2
    solver.parameters.relative_gap_limit = gap
    status = solver.status_name(solver.solve(model))
    spent = time.perf_counter() - start
    return {"seconds": spent, "objective": solver.objective_value / scale, "status": status.lower(), "asked gap": gap}


def scip(problem: Problem, limit: float, gap: float = 1e-3) -> dict[str, Any]:
    """Solves with SCIP on numbers that are scaled like ours."""
    from pyscipopt import Model, quicksum

    start = time.perf_counter()
    model = Model()
    model.hideOutput()
    x = [model.addVar(vtype="B") for _ in range(problem.size)]
    _groups(problem, x, lambda members: model.addCons(quicksum(members) == 1),
            lambda same, other: model.addCons(quicksum(same) == quicksum(other)))  # fmt: skip
    for budget in problem.budgets:
        values = problem.column(budget.column).astype(float) * (2**10 / float(budget.limit))
        model.addCons(quicksum(v * y for v, y in zip(values.tolist(), x, strict=True)) <= 2**10)
    scale = 2**20 / float(problem.costs[problem.grid].max(axis=1).sum())
    model.setObjective(quicksum(c * scale * y for c, y in zip(problem.costs.tolist(), x, strict=True)))
    model.setParam("limits/time", limit)
    model.setParam("limits/gap", gap)
    model.optimize()
    spent = time.perf_counter() - start
    objective = model.getObjVal() / scale if model.getNSols() else None
    return {"seconds": spent, "objective": objective, "status": model.getStatus(), "asked gap": gap}


def _groups(problem: Problem, x: list[Any], exactly_one: Callable[..., Any], same: Callable[..., Any]) -> None:
    for place in range(len(problem.groups)):
        exactly_one([x[c] for c in problem.members(place)])
    for tie in problem.ties:
        first, *others = tie.labels
        for label in dict.fromkeys(tie.labels[first]):
            for other in others:
                same(_of(problem, x, tie.labels, first, label), _of(problem, x, tie.labels, other, label))


def _of(problem: Problem, x: list[Any], labels: Any, group: str, label: str) -> list[Any]:
    members = problem.members(problem.positions[group])
    return [x[c] for c, word in zip(members, labels[group], strict=True) if word == label]


_ALL = {"CP-SAT": (cp_sat, "ortools"), "SCIP": (scip, "pyscipopt")}
RIVALS = tuple(name for name, (_, package) in _ALL.items() if importlib.util.find_spec(package))


def apart(name: str, budgets: int, seed: int, limit: float) -> dict[str, Any]:
    """Runs a rival on an instance of SDXL in its own process, since OR-tools' HiGHS conflicts with highspy."""
    command = [sys.executable, "-m", "benchmarks.rivals", name, str(budgets), str(seed), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    results: dict[str, Any] = json.loads(done.stdout) if not done.returncode else {"failed": done.stderr[-300:]}
    return results


def versions() -> dict[str, str]:
    """Returns the versions of the installed rivals."""
    return {package: version(package) for _, package in _ALL.values() if importlib.util.find_spec(package)}


if __name__ == "__main__":
    from benchmarks import instances

    chosen = _ALL[sys.argv[1]][0](instances.sdxl(int(sys.argv[2]), seed=int(sys.argv[3])), float(sys.argv[4]))
    print(json.dumps(chosen))
