"""Tests whether the plan depends on the unit of the losses: `python -m benchmarks.scale [--groups 200] [--budgets 2]`.

All losses of one problem are multiplied by 10^-30, 10^-25 ... 10^30, which rounds each to a float, and solved again in
every way: the exact path, PuLP alone with every available backend, the Lagrangian choice, greedy. Where plans differ,
`spread` is the relative difference of the objective in the unscaled losses, computed exactly. Writes
benchmarks/results/scale.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.about import about, write_result
from benchmarks.instances import SCHEMES_12, Shape, problem_of
from tabulate import tabulate
from tqdm import tqdm

from bitplan.solvers.certify import exact_total, violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Picks, Problem
from bitplan.solvers.programs.backends import BACKENDS
from bitplan.solvers.strategies import strategy_named

POWERS = range(-30, 31, 5)
LOSSES = ("quality", "alignment")
WAYS: tuple[tuple[str, str | None], ...] = (
    ("exact", None),
    *(("ilp", backend.name) for backend in BACKENDS if backend.missing() is None),
    ("lagrangian", None),
    ("greedy", None),
)
WIDTHS, TOKENS = (320, 640, 1280, 2048, 2560, 5120), (77, 1024, 4096)


def sliced(groups: int, budgets: int, seed: int = 0) -> Problem:
    """Makes a problem of a UNet's layer sizes with 12 schemes, where three consecutive layers read one input."""
    random = np.random.default_rng(seed)
    sizes = random.choice(WIDTHS, (groups, 2)).tolist()
    tokens = random.choice(TOKENS, groups).tolist()
    shapes = tuple(
        Shape(f"layer{i}", (rows, columns), rows * columns * tokens[i], i // 3)
        for i, (rows, columns) in enumerate(sizes)
    )
    return problem_of(shapes, SCHEMES_12, budgets, seed)


def scaled(problem: Problem, power: int) -> Problem:
    """Returns the problem with its losses, and the limits on them, multiplied by a power of ten."""
    columns = {name: v * 10.0**power if name in LOSSES else v for name, v in problem.columns.items()}
    limits = [b.limit * 10.0**power if b.column in LOSSES else b.limit for b in problem.budgets]
    budgets = tuple(replace(b, limit=limit) for b, limit in zip(problem.budgets, limits, strict=True))
    return replace(problem, columns=columns, budgets=budgets)


def plan(problem: Problem, way: tuple[str, str | None], power: int, time_limit: float = 60.0) -> Picks | None:
    """Returns the certified choice of one way at that scale, or None."""
    name, backend = way
    at = scaled(problem, power)
    solution = strategy_named(name).run(at, Effort(time_limit=time_limit, backend=backend))
    if solution.choice is None:
        return None
    assert not violations(at, solution.picks)
    return solution.picks


def measure(problem: Problem, way: tuple[str, str | None], powers: Sequence[int], time_limit: float) -> dict[str, Any]:
    """Returns the results of one way at every scale."""
    start = time.perf_counter()
    label = " ".join(filter(None, way))
    plans = [plan(problem, way, power, time_limit) for power in tqdm(powers, desc=label)]
    results = [picks for picks in plans if picks is not None]
    sums = [float(exact_total(problem, "quality", picks)) for picks in results]
    common = max(set(results), key=results.count) if results else None
    return {
        "way": label, "scales": len(plans), "plans": len(set(results)), "none": len(plans) - len(results),
        "different_at": [power for power, picks in zip(powers, plans, strict=True) if picks != common],
        "objective": min(sums, default=None), "spread": (max(sums) - min(sums)) / min(sums) if sums else None,
        "seconds": (time.perf_counter() - start) / len(plans),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--budgets", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--time", type=float, default=60.0, help="seconds for each solve")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scale.json")
    args = parser.parse_args()
    problem = sliced(args.groups, args.budgets)
    rows = [measure(problem, way, POWERS, args.time) for way in WAYS]
    print(tabulate(rows, headers="keys", floatfmt=".6g"))
    described = about(0, groups=args.groups, budgets=args.budgets, powers=list(POWERS), seconds_each=args.time)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_result(args.out, {"rows": rows}, described)


if __name__ == "__main__":
    main()
