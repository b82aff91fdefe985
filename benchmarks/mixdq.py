"""Compares one joint program with MixDQ's split programs, on the measurements and plans that its authors published.

    python -m benchmarks.mixdq FOLDER [--out benchmarks/results/mixdq.json]

FOLDER holds the sensitivity files of SDXL-Turbo's weights and `final_weight_*.yaml`. For each published plan it
reports, at no more mean bits, the smallest noise power (sum of `nsr` over all layers) with no more SSIM loss (sum of
`dssim` over the layers that have an SSIM), by

    - published: the plan itself, which its authors selected among their programs' solutions by one image;
    - their programs: the largest summed SSIM of cross-attention and feed-forward layers at 2, 4 or 8 bits and the
      largest summed dB of the others at 4 or 8, for their 10 targets x 10 split factors; the best solution counts;
    - split: the same two sets with our losses in place of dB and SSIM, and the bits shared in 200 even steps;
    - joint, 4 or 8: one program, the same formats; joint: one program, 2, 4 or 8 bits for every layer.

The best of both splits is the smallest noise power among the solutions with no more bits and no more SSIM loss than
published; where there is none, the figures without the limit on SSIM loss are given and marked.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tabulate import tabulate

import bitplan
from bitplan.planner.choice.evidence import Evidence, read_evidence
from bitplan.planner.choice.problem import formulate
from bitplan.planner.interop.foreign.mixdq import SCHEMES, address
from bitplan.planner.profiles.profile import open_profile
from bitplan.solvers.certify import exact_total, violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem
from bitplan.solvers.solution import Choice, choice_of
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies.split import Split, SplitPoint, best, halves, share_of, shares, sweep

PLANS = ("3.66", "4.00", "4.08", "5.02")
TARGETS, FACTORS = 10, np.linspace(0.46, 1.36, 10)  # their grid: mean bits from 0.3 below the target, and the split's
STEPS = 200


def problem_of(evidence: Evidence) -> Problem:
    """Makes a problem of all layers at 2, 4 and 8 bits. Column `dB`: the distance below the floor, since the authors
    add up dB.
    """
    problem = formulate(evidence, {"nsr": 1.0}, (), real=True)
    names = np.array([name for names in problem.candidates for name in names])
    offered = np.isin(names, SCHEMES)
    decibels = np.zeros(problem.size)
    decibels[offered] = 10 * np.log10(problem.column("nsr")[offered])
    columns = problem.columns | {"dB": np.where(offered, decibels - decibels[offered].min(), 0.0)}
    return replace(problem, columns=columns, allowed=problem.allowed & offered)


def published(problem: Problem, path: Path) -> Choice:
    """Reads the plan in the file."""
    bits = {address(name): value for name, value in yaml.safe_load(path.read_text()).items()}
    return choice_of(problem, tuple(problem.index(group, f"w{bits[group]}za16") for group in problem.groups))


def in_content(group: str) -> bool:
    """Returns whether MixDQ scores the layer by SSIM."""
    return "ff" in group or "attn2" in group


def as_theirs(problem: Problem) -> Problem:
    """Forbids 2 bits for the layers that MixDQ scores by SQNR."""
    allowed = problem.allowed.copy()
    for group in problem.groups:
        if not in_content(group):
            allowed[problem.index(group, "w2za16")] = False
    return replace(problem, allowed=allowed)


def bounded(problem: Problem, plan: Choice) -> Problem:
    """Adds limits of no more bytes and no more SSIM loss than the plan's, in exact arithmetic."""
    limits = (Budget(column, exact_total(problem, column, plan.picks)) for column in ("bytes", "dssim"))
    return replace(problem, budgets=tuple(limits))


def their_points(problem: Problem, objectives: tuple[Mapping[str, float], Mapping[str, float]]) -> list[SplitPoint]:
    """Solves the split for every target and factor of the authors' grid; both budgets are upper bounds."""
    split = Split(frozenset(filter(in_content, problem.groups)), objectives, "bytes")
    content, quality = (int(half.column("bytes")[half.grid].max(axis=1).sum()) for half in halves(problem, split))
    weights = (content + quality) / 2  # `keep` has 2 bytes a weight
    limit = int(problem.budgets[0].limit)
    points: list[SplitPoint] = []
    for target in np.linspace(limit - 0.3 * weights / 8, limit, TARGETS):
        goal = replace(problem, budgets=(Budget("bytes", int(target)),))
        parts = [share for factor in FACTORS if _sensible(share := share_of(goal, split, factor), goal, split)]
        points += sweep(goal, split, parts, Effort(time_limit=600))
    return [replace(point, broken=violations(problem, point.choice.picks)) for point in points if point.choice]


def _sensible(share: Any, problem: Problem, split: Split) -> bool:
    """Returns whether the mean bits are 2 to 8 for the first set and 4 to 8 for the second; the authors skip other
    pairs.
    """
    sizes = [half.column("bytes")[half.grid].max(axis=1).sum() / 2 for half in halves(problem, split)]
    bits = (8 * share / sizes[0], 8 * (problem.budgets[0].limit - share) / sizes[1])
    return bool(2 <= bits[0] <= 8 and 4 <= bits[1] <= 8)


def compare(problem: Problem, plan: Choice) -> dict[str, dict[str, Any]]:
    """Returns the figures of all methods for one published plan."""
    whole, same = bounded(problem, plan), bounded(as_theirs(problem), plan)
    split = Split(frozenset(filter(in_content, problem.groups)), ({"dssim": 1.0}, {"nsr": 1.0}), "bytes")
    rows = {"published": figures(problem, plan)}
    for name, points_of in (
        ("their programs", lambda: their_points(same, ({"dssim": 1.0}, {"dB": 1.0}))),
        ("split", lambda: list(sweep(same, split, shares(same, split, STEPS), Effort(time_limit=600)))),
    ):
        start = time.perf_counter()
        points = points_of()
        rows[name] = best_of(problem, points) | {"seconds": time.perf_counter() - start}
    for name, program in (("joint, 4 or 8", same), ("joint", whole)):
        answer = solve(program)
        about_answer = {"status": str(answer.status), "gap": answer.gap, "seconds": answer.seconds}
        rows[name] = figures(problem, choice_of(problem, answer.picks)) | about_answer
        assert not violations(program, answer.picks)
    for row in rows.values():
        row["times_less_noise"] = rows["published"]["nsr"] / row["nsr"]
        row["times_joint"] = row["nsr"] / rows["joint"]["nsr"]
    return rows


def best_of(problem: Problem, points: list[SplitPoint]) -> dict[str, Any]:
    """Returns the best solution's figures, the number of solutions, and the number within both limits."""
    within = [point for point in points if point.choice and not point.broken]
    chosen = best(points, "nsr") or best([replace(point, broken=()) for point in points], "nsr")
    assert chosen is not None and chosen.choice is not None
    counts = {"answers": len(points), "within": len(within), "loses_more_ssim": not within}
    return figures(problem, chosen.choice) | counts


def figures(problem: Problem, choice: Choice) -> dict[str, Any]:
    """Returns mean bits a weight, summed noise power and summed SSIM loss."""
    full = problem.column("bytes")[problem.grid].max(axis=1).sum()  # `keep`, 16 bits
    return {
        "bits": 16 * choice.totals["bytes"] / int(full), "nsr": choice.totals["nsr"], "dssim": choice.totals["dssim"]
    }  # fmt: skip


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Returns a table with one row for each plan and method."""
    rows = [
        (plan, name + " (more SSIM loss)" * row.get("loses_more_ssim", False), f"{row['bits']:.4f}",
         f"{row['nsr']:.4e}", f"{row['dssim']:.4f}", f"{row['times_less_noise']:.2f}",
         f"{row['times_joint']:.2f}", _note(row))
        for plan, its in results.items() for name, row in its.items()
    ]  # fmt: skip
    headers = ("plan", "by", "mean bits", "noise power", "SSIM loss", "times less noise", "times joint's", "")
    return str(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def _note(row: Mapping[str, Any]) -> str:
    return f"{row['within']} of {row['answers']} within" if "within" in row else str(row.get("status", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mixdq.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        profile = Path(temporary) / "mixdq.profile"
        decided = bitplan.import_profile("mixdq", args.folder, profile)
        with open_profile(profile) as store:
            evidence = read_evidence(store)
    problem = problem_of(evidence)
    print(decided, flush=True)
    results = {}
    for name in PLANS:
        results[name] = compare(problem, published(problem, args.folder / f"final_weight_{name}.yaml"))
        print(table({name: results[name]}), flush=True)
    about = {
        "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
        "versions": {package: version(package) for package in ("numpy", "pulp", "highspy")}, "decided": decided,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"plans": results, "about": about}, indent=1) + "\n")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
