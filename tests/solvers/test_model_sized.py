"""Problems of a model's size that are feasible with nothing to spare, or infeasible by the smallest step there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.solvers.certify import lower_bound
from bitplan.solvers.problem import Budget, Problem, Tie, rebudget
from bitplan.solvers.solution import Status
from bitplan.solvers.solve import solve

GROUPS, SIZE = 800, 12


def model(seed: int = 0) -> Problem:
    """Layers of 12 schemes whose bytes fall with bits and whose microseconds do not follow them; ties by threes."""
    random = np.random.default_rng(seed)
    bits = np.tile([16, 8, 8, 6, 6, 5, 5, 4, 4, 3, 3, 2], GROUPS)
    size = np.repeat(random.lognormal(13, 1.2, GROUPS).astype(np.int64), SIZE)
    loss = np.repeat(random.lognormal(-12, 3, GROUPS), SIZE) * 4.0 ** -bits.astype(float)
    speed = np.tile([2.0, 1.0] * 6, GROUPS) * random.uniform(0.9, 1.3, GROUPS * SIZE) * (1 + 0.1 * (bits < 4))
    labels = ("16", "8") * 6
    return Problem(
        tuple(f"layer{i}" for i in range(GROUPS)),
        (tuple(f"s{j}" for j in range(SIZE)),) * GROUPS,
        {"bytes": size * bits // 8, "us": (size * speed / 1000).astype(np.int64),
         "loss": loss * random.uniform(0.8, 1.2, GROUPS * SIZE)},
        {"loss": 1.0},
        ties=tuple(Tie({f"layer{i + j}": labels for j in range(3)}) for i in range(0, 600, 10)),
    )  # fmt: skip


@pytest.mark.parametrize("off", [0, 1])
def test_least_bytes_within_the_time_are_enough_and_one_fewer_is_not(off: int) -> None:
    problem, us = model(), Budget("us", 700_000)
    small = rebudget(replace(problem, objective={"bytes": 1.0}), (us,))
    least = solve(small)
    assert least.status is Status.OPTIMAL and least.totals["us"] > 0.999 * us.limit
    assert lower_bound(small, least.prices) > 0.9999 * least.totals["bytes"]
    solution = solve(rebudget(problem, (us, Budget("bytes", least.totals["bytes"] - off))))
    assert solution.status is (Status.INFEASIBLE if off else Status.OPTIMAL)
    assert off or solution.totals["bytes"] == least.totals["bytes"]


@pytest.mark.parametrize("short", ["", "bytes", "us"])
def test_what_one_budget_gives_the_other_takes(short: str) -> None:
    """bytes + us of every candidate is above its group's constant, but equal to it for one planted in each group: both
    limits together admit the planted choice and no other, and once either is one lower nothing at all."""
    problem = model(1)
    random, size = np.random.default_rng(2), np.repeat(problem.columns["bytes"][::SIZE], SIZE)
    planted = np.arange(GROUPS) * SIZE + random.integers(0, 6, GROUPS) * 2 + 1  # all labelled "8", so that ties hold
    spare = random.integers(1, 1000, problem.size)
    spare[planted] = 0
    problem = replace(problem, columns={**problem.columns, "us": size - problem.columns["bytes"] + spare})
    sums = {name: int(problem.columns[name][planted].sum()) for name in ("bytes", "us")}
    budgets = tuple(Budget(name, limit - (name == short)) for name, limit in sums.items())
    solution = solve(rebudget(problem, budgets))
    assert solution.status is (Status.INFEASIBLE if short else Status.OPTIMAL)
    assert short or solution.picks == tuple(planted.tolist())
