"""Measures the speed of the exact path: `python -m benchmarks.solver [--seeds 5] [--out FILE]`.

SDXL's layer shapes, 794 layers x 12 schemes with ties (see `benchmarks.instances`), and 1, 2 and 3 binding budgets.
For comparison, in the same minute and process: the whole problem by PuLP and CBC, scaled like ours (an unscaled one is
faster and wrong); OR-tools' CP-SAT and SCIP where `ortools` and `pyscipopt` are installed. Then 50 budgets of a
frontier, and 5000 groups x 30 choices in its own process. Writes benchmarks/results/solver.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmarks import instances, rivals
from tabulate import tabulate

from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem, rebudget
from bitplan.solvers.questions.frontier import frontier
from bitplan.solvers.solve import solve

LIMIT = 60.0
GAPS = {"gap 1e-3": 1e-3, "proven": 0.0}
REPEATS = 3


def seconds(run: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Returns median wall seconds and the last result."""
    spent, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        spent.append(time.perf_counter() - start)
    return median(spent), result


def fresh(problem: Problem) -> Problem:
    """Returns the same problem without cached values."""
    return replace(problem)


def one(budgets: int, seed: int, everyone: bool) -> dict[str, Any]:
    """Solves one instance: ours at both gaps, the plain program, and rivals."""
    problem = instances.sdxl(budgets, seed=seed)
    row: dict[str, Any] = {"budgets": budgets, "seed": seed}
    for name, gap in GAPS.items():
        spent, results = seconds(lambda gap=gap: solve(fresh(problem), Effort(LIMIT, gap)), REPEATS)
        row[name] = {
            "seconds": spent,
            "objective": results.objective,
            "gap": results.gap,
            "status": str(results.status),
        }
    row["naive PuLP+CBC"] = rivals.naive(fresh(problem), LIMIT)
    if everyone:
        row |= {f"{name}, gap 1e-3": rivals.apart(name, budgets, seed, LIMIT) for name in rivals.RIVALS}
    for name in GAPS:
        row[name]["ratio"] = row["naive PuLP+CBC"]["seconds"] / row[name]["seconds"]
    return row


def curve(count: int = 50) -> dict[str, Any]:
    """Solves a frontier of one budget, and as many plain programs."""
    problem = instances.sdxl(1)
    limit = float(problem.budgets[0].limit)
    limits = [int(limit * share) for share in np.linspace(0.6, 2.2, count)]
    row: dict[str, Any] = {"budgets": count}
    for name, gap in GAPS.items():
        spent, results = seconds(
            lambda gap=gap: list(frontier(fresh(problem), "bytes", limits, Effort(gap=gap))), REPEATS
        )
        row[name] = {"seconds": spent, "largest gap": max(solution.gap for _, solution in results)}
    start = time.perf_counter()
    for at in limits:
        rivals.naive(rebudget(problem, (replace(problem.budgets[0], limit=at),)), LIMIT)
    row["naive PuLP+CBC"] = {"seconds": time.perf_counter() - start}
    for name in GAPS:
        row[name]["ratio"] = row["naive PuLP+CBC"]["seconds"] / row[name]["seconds"]
    return row


def child() -> None:
    """Solves 5000 groups x 30 choices with two budgets, and prints one line of JSON."""
    problem = instances.large()
    before = _peak_mib()
    spent, results = seconds(lambda: solve(problem, Effort(gap=1e-3)), 1)
    print(json.dumps({
        "candidates": problem.size, "seconds": spent, "gap": results.gap, "MiB before": before, "peak MiB": _peak_mib()
    }))  # fmt: skip


def _peak_mib() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def table(rows: list[dict[str, Any]]) -> str:
    names = [name for name in rows[0] if isinstance(rows[0][name], dict)]
    lines = []
    for row in rows:
        cells = [_cell(row.get(name, {})) for name in names]
        lines.append([row["budgets"], row["seed"], *cells])
    return str(tabulate(lines, ["budgets", "seed", *names], tablefmt="github"))


def _cell(results: dict[str, Any]) -> str:
    ratio = f" (1/{results['ratio']:.0f})" if "ratio" in results else ""
    return f"{results['seconds']:.3f}{ratio}" if "seconds" in results else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rivals", type=int, default=1, help="seeds on which CP-SAT and SCIP run too, 60 s each")
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "solver.json")
    args = parser.parse_args()
    if args.child:
        child()
        return
    rows = []
    for budgets in (1, 2, 3):
        for seed in range(args.seeds):
            rows.append(one(budgets, seed, seed < args.rivals))
            print(json.dumps(rows[-1]), flush=True)
    command = [sys.executable, "-m", "benchmarks.solver", "--child"]
    large = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    medians = {f"{budgets} budgets": {name: median(r[name]["ratio"] for r in rows if r["budgets"] == budgets)
                                      for name in GAPS} for budgets in (1, 2, 3)}  # fmt: skip
    about = {"machine": platform.processor() or platform.machine(), "python": platform.python_version(),
             "limit": LIMIT, **{name: version(name) for name in ("pulp", "highspy", "numpy")},
             **rivals.versions()}  # fmt: skip
    results = {"instances": rows, "median ratio to naive": medians, "frontier": curve(), "large": large, "about": about}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(rows))
    print(json.dumps({name: results[name] for name in ("median ratio to naive", "frontier", "large")}, indent=1))


if __name__ == "__main__":
    main()
