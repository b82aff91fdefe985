"""Compares `solve` with brute force over every choice of small random problems: `python -m benchmarks.brute_force`.

The problems have up to 8 groups x 5 candidates x 3 budgets, so up to 390 625 choices. They have ties, also overlapping
ones; equal, zero and forbidden candidates; and limits that a choice meets exactly or misses by the smallest step.
Every number is an integer times a power of two, so sums are exact in 64-bit integers here and in floats there: the
objectives must be equal. Every case is a function of the seed and its number. Writes
benchmarks/results/brute_force.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem, Tie, rebudget
from bitplan.solvers.solution import Solution, Status
from bitplan.solvers.solve import solve

GROUPS, CANDIDATES = 8, 5
BUDGETS = ("bytes", "ms", "alignment")
SIZES = (2, 4, 100, 2**20)  # numbers below these: coarse ones make equal candidates, fine ones a single optimum
MS, LOSS = 10, (0, 10, 100)  # milliseconds in 2^-10; losses in 2^0, 2^-10 or 2^-100

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A problem and its numbers as integers.

    Attributes:
        problem: the problem.
        integers: column -> integers; the column is integers * 2^-power.
        power: column -> power.
        objective: (C,), the objective of each candidate as integers.
    """

    problem: Problem
    integers: dict[str, Ints]
    power: dict[str, int]
    objective: Ints


def case(seed: int, number: int) -> Case:
    """Draws the case of that number."""
    random = np.random.default_rng([seed, number])
    count = int(random.integers(1, GROUPS + 1)) if random.random() < 0.3 else int(random.integers(5, GROUPS + 1))
    sizes = np.full(count, CANDIDATES) if random.random() < 0.5 else random.integers(1, CANDIDATES + 1, count)
    integers = _integers(random, int(sizes.sum()))
    scale = int(random.choice(LOSS))
    power = {"bytes": 0, "ms": MS, "quality": scale, "alignment": scale}
    groups = tuple(f"g{i}" for i in range(count))
    both = int(random.integers(0, 2))
    problem = Problem(
        groups,
        tuple(tuple(f"c{j}" for j in range(size)) for size in sizes),
        {name: v if not power[name] else np.ldexp(v.astype(float), -power[name]) for name, v in integers.items()},
        {"quality": 2.0, "alignment": float(both)},
    )
    for _ in range(int(random.integers(1, 4))):  # ties and bans that leave no choice are drawn again, up to twice
        tied = tuple(_tie(random, groups, sizes) for _ in range(random.choice(4, p=[0.3, 0.3, 0.2, 0.2])))
        banned = random.random(int(sizes.sum())) < random.choice([0.0, 0.1, 0.3], p=[0.6, 0.2, 0.2])
        problem = replace(problem, ties=tied, allowed=~banned)
        if respected(problem).any():
            break
    drawn = Case(problem, integers, power, 2 * integers["quality"] + both * integers["alignment"])
    return Case(rebudget(problem, _budgets(random, drawn)), integers, power, drawn.objective)


def _integers(random: np.random.Generator, count: int) -> dict[str, Ints]:
    """Draws four columns, with some zeros: unrelated, or losses that fall as bytes rise, where nothing dominates."""
    most = int(random.choice(SIZES))
    drawn = {name: random.integers(0, most, count) for name in ("bytes", "ms", "quality", "alignment")}
    if random.random() < 0.7:
        drawn["quality"] = most - drawn["bytes"] + random.integers(0, max(2, most // 10), count) * random.integers(0, 2)
    if random.random() < 0.3:
        drawn["ms"] = drawn["bytes"] + random.integers(0, 2, count)
    for name, values in drawn.items():
        values[random.random(count) < random.choice([0.0, 0.3], p=[0.8, 0.2])] = 0
        if name == "bytes":
            values *= int(random.choice([1, 1000003]))
    return drawn


def _tie(random: np.random.Generator, groups: tuple[str, ...], sizes: Ints) -> Tie:
    members = random.permutation(len(groups))[: random.integers(1, 5)]
    labels = ["a", "b", "c"][: random.integers(1, 4)]
    return Tie({groups[i]: tuple(random.choice(labels, sizes[i]).tolist()) for i in members})


def _budgets(random: np.random.Generator, drawn: Case) -> tuple[Budget, ...]:
    """Draws limits that one choice meets in all budgets, or quantiles, or the smallest sum, some moved by one step."""
    valid = np.flatnonzero(respected(drawn.problem))
    names = [name for name in BUDGETS if random.random() < 0.7]
    if not len(valid) or not names:
        return ()
    sums = {name: total(drawn.problem, drawn.integers[name])[valid] for name in names}
    one, kind = int(random.integers(len(valid))), random.choice(["one choice", "quantile", "least"], p=[0.4, 0.4, 0.2])
    results = []
    for name in names:
        share = 0.0 if kind == "least" and name == names[-1] else random.random() ** random.choice([1, 3])
        limit = int(sums[name][one] if kind == "one choice" else np.quantile(sums[name], share, method="lower"))
        limit += int(random.choice([-1, 0, 1], p=[0.15, 0.7, 0.15]))
        results.append(Budget(name, limit if not drawn.power[name] else math.ldexp(limit, -drawn.power[name])))
    return tuple(results)


def total(problem: Problem, values: Ints) -> Ints:
    """Returns the sum of every choice; the last group's candidate changes fastest."""
    sums = np.zeros(1, dtype=np.int64)
    for place in range(len(problem.groups)):
        members = problem.members(place)
        sums = (sums[:, None] + values[members.start : members.stop]).ravel()
    return sums


def respected(problem: Problem) -> NDArray[np.bool_]:
    """Returns for every choice, in the same order, whether it is allowed and respects the ties."""
    fits = total(problem, (~problem.allowed).astype(np.int64)) == 0
    for tie in problem.ties:
        words = {word: number for number, word in enumerate(sorted({w for its in tie.labels.values() for w in its}))}
        masks = np.full(problem.size, (1 << len(words)) - 1)
        for group, labels in tie.labels.items():
            members = problem.members(problem.positions[group])
            masks[members.start : members.stop] = [1 << words[word] for word in labels]
        common = np.array([(1 << len(words)) - 1])
        for place in range(len(problem.groups)):
            members = problem.members(place)
            common = (common[:, None] & masks[members.start : members.stop]).ravel()
        fits &= common > 0
    return fits


def least(drawn: Case) -> int | None:
    """Returns the smallest objective within the budgets by trying every choice, or None where there is none."""
    fits = respected(drawn.problem)
    for budget in drawn.problem.budgets:
        limit = int(math.ldexp(budget.limit, drawn.power[budget.column]))
        fits &= total(drawn.problem, drawn.integers[budget.column]) <= limit
    sums = total(drawn.problem, drawn.objective)[fits]
    return int(sums.min()) if len(sums) else None


def verdict(drawn: Case, solution: Solution) -> str:
    """Returns `optimal` or `infeasible` for a correct solution, else the error."""
    best = least(drawn)
    if best is None:
        return "infeasible" if solution.status is Status.INFEASIBLE else f"wrong: {solution.status}, but there is none"
    if solution.status is not Status.OPTIMAL:
        return f"wrong: {solution.status}, but there is an optimum"
    picks = list(solution.picks)
    place = int(np.ravel_multi_index(
        np.array(picks) - drawn.problem.offsets[:-1], [len(names) for names in drawn.problem.candidates]
    ))  # fmt: skip
    if not respected(drawn.problem)[place]:
        return "wrong: breaks a tie or takes what is forbidden"
    for budget in drawn.problem.budgets:
        if math.ldexp(int(drawn.integers[budget.column][picks].sum()), -drawn.power[budget.column]) > budget.limit:
            return f"wrong: breaks the budget on {budget.column}"
    got, exact = int(drawn.objective[picks].sum()), math.ldexp(best, -drawn.power["quality"])
    if got != best or solution.objective != exact:
        return f"wrong: objective {solution.objective}, least is {exact}"
    return "optimal" if solution.bound <= exact else f"wrong: bound {solution.bound}, least is {exact}"


def check(seed: int, backend: str | None, number: int) -> tuple[str, str, float]:
    """Solves one case; returns the verdict, why `solve` stopped, and its seconds."""
    drawn = case(seed, number)
    try:
        solution = solve(drawn.problem, Effort(backend=backend))
    except Exception as error:  # a crash is a difference, and must not end the run
        return f"wrong: {type(error).__name__}: {error}", "crashed", 0.0
    return verdict(drawn, solution), solution.stopped, solution.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes; 1 runs in this one")
    parser.add_argument("--backend", help="a name of solvers.programs.backends, default the first that runs here")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "brute_force.json")
    args = parser.parse_args()
    start, work = time.monotonic(), partial(check, args.seed, args.backend)
    if args.jobs == 1:
        results = list(tqdm(map(work, range(args.count)), total=args.count))
    else:
        with ProcessPoolExecutor(args.jobs) as pool:
            results = list(tqdm(pool.map(work, range(args.count), chunksize=20), total=args.count))
    wrong = {number: outcome for number, (outcome, *_) in enumerate(results) if outcome.startswith("wrong")}
    counts = Counter("differing" if number in wrong else outcome for number, (outcome, *_) in enumerate(results))
    result = {
        "cases": len(results), "optimal": counts["optimal"], "infeasible": counts["infeasible"],
        "differing": len(wrong), "first_differing": dict(list(wrong.items())[:20]),
        "stopped": dict(Counter(why for _, why, _ in results).most_common()),
        "solve_seconds": {"mean": sum(s for *_, s in results) / len(results), "most": max(s for *_, s in results)},
        "about": {"seed": args.seed, "backend": args.backend, "jobs": args.jobs, "python": platform.python_version(),
                  "machine": platform.machine(), "seconds": time.monotonic() - start},
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
