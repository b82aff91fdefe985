"""Compares `solve` with brute force over every choice of small random problems: `python -m benchmarks.brute_force`.

Up to 8 groups x 5 candidates x 3 budgets, hence up to 390 625 choices a problem. Ties, overlapping ones too; equal,
zero and forbidden candidates; limits that some choice meets exactly, or misses by the smallest step there is. Every
number is an integer times a power of two, so that sums are exact in 64-bit integers here and in floats there: the
objectives must be equal, not close. Every case is a function of the seed and its number.
Writes benchmarks/results/brute_force.json.
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
    """A problem, and its numbers as integers: column = integers * 2^-power, and `objective` (C,) likewise."""

    problem: Problem
    integers: dict[str, Ints]
    power: dict[str, int]
    objective: Ints


def case(seed: int, number: int) -> Case:
    """The case of that number."""
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
    made = Case(problem, integers, power, 2 * integers["quality"] + both * integers["alignment"])
    return Case(rebudget(problem, _budgets(random, made)), integers, power, made.objective)


def _integers(random: np.random.Generator, count: int) -> dict[str, Ints]:
    """Four columns: unrelated, or losses that fall as bytes rise (the hard kind: nothing dominates), some zeros."""
    most = int(random.choice(SIZES))
    made = {name: random.integers(0, most, count) for name in ("bytes", "ms", "quality", "alignment")}
    if random.random() < 0.7:
        made["quality"] = most - made["bytes"] + random.integers(0, max(2, most // 10), count) * random.integers(0, 2)
    if random.random() < 0.3:
        made["ms"] = made["bytes"] + random.integers(0, 2, count)
    for name, values in made.items():
        values[random.random(count) < random.choice([0.0, 0.3], p=[0.8, 0.2])] = 0
        if name == "bytes":
            values *= int(random.choice([1, 1000003]))
    return made


def _tie(random: np.random.Generator, groups: tuple[str, ...], sizes: Ints) -> Tie:
    members = random.permutation(len(groups))[: random.integers(1, 5)]
    labels = ["a", "b", "c"][: random.integers(1, 4)]
    return Tie({groups[i]: tuple(random.choice(labels, sizes[i]).tolist()) for i in members})


def _budgets(random: np.random.Generator, made: Case) -> tuple[Budget, ...]:
    """Limits that one choice meets exactly in all budgets, or each its own, or the least sum; then maybe a step off."""
    valid = np.flatnonzero(respected(made.problem))
    names = [name for name in BUDGETS if random.random() < 0.7]
    if not len(valid) or not names:
        return ()
    sums = {name: total(made.problem, made.integers[name])[valid] for name in names}
    one, kind = int(random.integers(len(valid))), random.choice(["one choice", "quantile", "least"], p=[0.4, 0.4, 0.2])
    found = []
    for name in names:
        share = 0.0 if kind == "least" and name == names[-1] else random.random() ** random.choice([1, 3])
        limit = int(sums[name][one] if kind == "one choice" else np.quantile(sums[name], share, method="lower"))
        limit += int(random.choice([-1, 0, 1], p=[0.15, 0.7, 0.15]))
        found.append(Budget(name, limit if not made.power[name] else math.ldexp(limit, -made.power[name])))
    return tuple(found)


def total(problem: Problem, values: Ints) -> Ints:
    """The sum over every choice, the last group's candidate changing fastest."""
    sums = np.zeros(1, dtype=np.int64)
    for place in range(len(problem.groups)):
        members = problem.members(place)
        sums = (sums[:, None] + values[members.start : members.stop]).ravel()
    return sums


def respected(problem: Problem) -> NDArray[np.bool_]:
    """For every choice, in the same order, whether it is allowed and respects the ties."""
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


def least(made: Case) -> int | None:
    """The least objective within the budgets, by trying every choice; None where there is none."""
    fits = respected(made.problem)
    for budget in made.problem.budgets:
        limit = int(math.ldexp(budget.limit, made.power[budget.column]))
        fits &= total(made.problem, made.integers[budget.column]) <= limit
    sums = total(made.problem, made.objective)[fits]
    return int(sums.min()) if len(sums) else None


def verdict(made: Case, solution: Solution) -> str:
    """`optimal` or `infeasible` where the solution is right, else what is wrong with it."""
    best = least(made)
    if best is None:
        return "infeasible" if solution.status is Status.INFEASIBLE else f"wrong: {solution.status}, but there is none"
    if solution.status is not Status.OPTIMAL:
        return f"wrong: {solution.status}, but there is an optimum"
    picks = list(solution.picks)
    place = int(np.ravel_multi_index(
        np.array(picks) - made.problem.offsets[:-1], [len(names) for names in made.problem.candidates]
    ))  # fmt: skip
    if not respected(made.problem)[place]:
        return "wrong: breaks a tie or takes what is forbidden"
    for budget in made.problem.budgets:
        if math.ldexp(int(made.integers[budget.column][picks].sum()), -made.power[budget.column]) > budget.limit:
            return f"wrong: breaks the budget on {budget.column}"
    got, exact = int(made.objective[picks].sum()), math.ldexp(best, -made.power["quality"])
    if got != best or solution.objective != exact:
        return f"wrong: objective {solution.objective}, least is {exact}"
    return "optimal" if solution.bound <= exact else f"wrong: bound {solution.bound}, least is {exact}"


def check(seed: int, backend: str | None, number: int) -> tuple[str, str, float]:
    """What came of one case, why `solve` stopped, and its seconds."""
    made = case(seed, number)
    try:
        solution = solve(made.problem, Effort(backend=backend))
    except Exception as error:  # a crash is a difference, and must not end the run
        return f"wrong: {type(error).__name__}: {error}", "crashed", 0.0
    return verdict(made, solution), solution.stopped, solution.seconds


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
        found = list(tqdm(map(work, range(args.count)), total=args.count))
    else:
        with ProcessPoolExecutor(args.jobs) as pool:
            found = list(tqdm(pool.map(work, range(args.count), chunksize=20), total=args.count))
    wrong = {number: said for number, (said, *_) in enumerate(found) if said.startswith("wrong")}
    counts = Counter("differing" if number in wrong else said for number, (said, *_) in enumerate(found))
    result = {
        "cases": len(found), "optimal": counts["optimal"], "infeasible": counts["infeasible"],
        "differing": len(wrong), "first_differing": dict(list(wrong.items())[:20]),
        "stopped": dict(Counter(why for _, why, _ in found).most_common()),
        "solve_seconds": {"mean": sum(s for *_, s in found) / len(found), "most": max(s for *_, s in found)},
        "about": {"seed": args.seed, "backend": args.backend, "jobs": args.jobs, "python": platform.python_version(),
                  "machine": platform.machine(), "seconds": time.monotonic() - start},
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
