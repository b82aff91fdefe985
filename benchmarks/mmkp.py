"""Runs `solve` on standard multi-dimensional multiple-choice knapsack instances: `python -m benchmarks.mmkp FOLDER`.

FOLDER holds I01, I02, ... (Khan, Li, Manning and Akbar 2002, "Solving the knapsack problem for adaptive multimedia
systems") and `mmkp.opt` with one line an instance: name, minus the best known value, and 1 where it is proven optimal.
The instances maximise profit; a candidate's loss is the difference to its group's largest profit. Profits are read as
hundredths, so all sums are exact. Text after the data in the files of I07 to I13 is ignored. Writes
benchmarks/results/mmkp.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.about import about, write_result
from tabulate import tabulate

from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem
from bitplan.solvers.search import path
from bitplan.solvers.solve import solve

CENTS = 100


@dataclass(frozen=True)
class Instance:
    """An instance.

    Attributes:
        problem: its losses in hundredths.
        most: the sum of each group's largest profit, in hundredths.
    """

    name: str
    problem: Problem
    most: int

    def profit(self, loss: float) -> float:
        return (self.most - loss) / CENTS


@dataclass(frozen=True)
class Row:
    """One result. known: best known profit; proven: whether that is the optimum; gap: (bound - ours) / ours, of
    profits; steps: seconds in each step of the exact path.
    """

    name: str
    known: float
    proven: bool
    ours: float
    bound: float
    gap: float
    seconds: float
    status: str
    stopped: str
    steps: dict[str, float]


def read(path: Path) -> Instance:
    """Reads an instance. Raises ValueError where a group's number is not the next."""
    words = iter(path.read_text().split())
    groups, size, budgets = (int(next(words)) for _ in range(3))
    limits = [Fraction(next(words)) for _ in range(budgets)]
    table = np.array(list(_candidates(words, groups, size, budgets)), dtype=np.int64)
    most = table[:, 0].reshape(groups, size).max(axis=1)
    columns = {f"r{i}": table[:, 1 + i] for i in range(budgets)}
    problem = Problem(
        tuple(str(group) for group in range(1, groups + 1)),
        (tuple(str(item) for item in range(size)),) * groups,
        columns | {"loss": np.repeat(most, size) - table[:, 0]},
        {"loss": 1.0},
        tuple(Budget(f"r{i}", limit) for i, limit in enumerate(limits)),
    )
    return Instance(path.name, problem, int(most.sum()))


def _candidates(words: Iterator[str], groups: int, size: int, budgets: int) -> Iterator[list[int]]:
    """Yields profit in hundredths and weights of each candidate."""
    for group in range(1, groups + 1):
        if (number := next(words)) != str(group):
            raise ValueError(f"group {group} is numbered {number}; expected the groups in order")
        for _ in range(size):
            profit = Fraction(next(words)) * CENTS
            yield [int(profit), *(int(next(words)) for _ in range(budgets))]


def best_known(folder: Path) -> dict[str, tuple[float, bool]]:
    """Returns name -> the best known profit and whether it is proven optimal."""
    lines = (line.split() for line in (folder / "mmkp.opt").read_text().splitlines())
    return {name: (-float(value), proven == "1") for name, value, proven in filter(None, lines)}


def measure(instance: Instance, known: tuple[float, bool], time_limit: float) -> Row:
    """Solves an instance once."""
    with Clock() as clock:
        solution = solve(instance.problem, Effort(time_limit=time_limit))
    ours, bound = instance.profit(solution.objective), instance.profit(solution.bound)
    return Row(
        instance.name, *known, ours, bound, max(0.0, bound - ours) / ours, solution.seconds, str(solution.status),
        solution.stopped, clock.seconds,
    )  # fmt: skip


class Clock:
    """Measures seconds in each step that `bitplan.solvers.search.path` calls, while entered."""

    STEPS = {"ascend": "prices", "repair": "repair", "fix": "fixing", "search": "labels", "_run_program": "PuLP"}

    def __enter__(self) -> Clock:
        self.originals = {name: getattr(path, name) for name in self.STEPS}
        self.seconds = dict.fromkeys(self.STEPS.values(), 0.0)
        for name, step in self.originals.items():
            setattr(path, name, self._timed(self.STEPS[name], step))
        return self

    def __exit__(self, *error: object) -> None:
        for name, step in self.originals.items():
            setattr(path, name, step)

    def _timed(self, label: str, step: Any) -> Any:
        def run(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return step(*args)
            finally:
                self.seconds[label] += time.perf_counter() - start

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--time", type=float, default=10.0, help="seconds for each instance without a known optimum")
    parser.add_argument("--proof", type=float, default=300.0, help="seconds for each of the others")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mmkp.json")
    args = parser.parse_args()
    known = best_known(args.folder)
    rows = []
    for name in (name for name in known if (args.folder / name).exists()):
        seconds = args.proof if known[name][1] else args.time
        rows.append(measure(read(args.folder / name), known[name], seconds))
        print(json.dumps(asdict(rows[-1])), flush=True)
    shown = [{**asdict(row), **row.steps} for row in rows]
    for row in shown:
        del row["steps"], row["stopped"]
    print(tabulate(shown, headers="keys", floatfmt=".8g"))
    described = about(None, seconds=args.time, seconds_where_an_optimum_is_known=args.proof)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_result(args.out, {"rows": [asdict(row) for row in rows]}, described)


if __name__ == "__main__":
    main()
