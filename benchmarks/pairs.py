"""Finds how many pairwise terms are practical: `python -m benchmarks.pairs [--limit 60]`.

SDXL's 794 layers x 12 schemes, two budgets, and terms between consecutive layers of a tenth of their losses' size, to
a gap of 1e-3. Writes benchmarks/results/pairs.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from benchmarks.about import about, write_result
from benchmarks.instances import sdxl

from bitplan.solvers.effort import Effort
from bitplan.solvers.questions.pairs import PairTerm, solve_pairs, with_pairs
from bitplan.solvers.solve import solve

COUNTS = (0, 25, 50, 100, 200, 400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pairs.json")
    args = parser.parse_args()
    problem, random = sdxl(2, seed=args.seed), np.random.default_rng(args.seed)
    losses = problem.costs.reshape(len(problem.groups), -1)
    plain = solve(problem, Effort(gap=1e-3))
    rows = []
    for count in COUNTS:
        pairs = [
            PairTerm(problem.groups[i], problem.groups[i + 1],
                 0.2 * np.sqrt(np.outer(losses[i], losses[i + 1])) * random.uniform(-1, 1))
            for i in random.choice(len(problem.groups) - 1, count, replace=False)
        ]  # fmt: skip
        results = solve_pairs(problem, pairs, Effort(time_limit=args.limit, gap=1e-3))
        ignoring = with_pairs(problem, pairs, plain.choice).objective if plain.choice else None
        rows.append({"pairs": count, "seconds": results.seconds, "objective": results.objective, "gap": results.gap,
                     "objective of the choice that ignores them": ignoring})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    write_result(args.out, {"rows": rows}, about(args.seed, limit=args.limit))


if __name__ == "__main__":
    main()
