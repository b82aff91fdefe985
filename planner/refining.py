"""Where the choice is still open: the candidates that the numbers, as sure as they are, cannot tell from the chosen.

At the solver's prices every candidate has a regret: what taking it would cost more than its group's best one. The
choice between the two is open while the regret is below `Z` times what the two losses may be off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InfeasibleError, UserError
from planner.formulate import Evidence, formulate, groups_of
from planner.methods.base import Pair
from planner.solving import Request, pose, read_evidence
from planner.store import Profile
from sensitivity.table import FAMILIES, LossTable
from solvers.problem import Problem
from solvers.solve import solve
from solvers.strategies import Effort

Z = 1.64  # standard errors: 9 in 10 of normal differences are closer
GAP = 1e-3  # of the plan that is looked at


@dataclass(frozen=True)
class Contest:
    """Two candidates of one group whose order is open. regret, error: in units of the objective."""

    group: str
    best: str
    other: str
    regret: float
    error: float


def contests(store: Profile, memory: str) -> list[Contest]:
    """What is open at a memory budget, by quality and alignment alike, the most open first.

    Raises UserError for a budget that is none or that no plan meets, and for a profile that lacks measurements.
    """
    evidence = read_evidence(store)
    known = {name: 1.0 for name in FAMILIES if name in evidence.metrics.values()}
    try:
        problem = pose(evidence, Request(known, memory=memory, real=False), Effort(gap=GAP))
        found = solve(problem, gap=GAP)
    except InfeasibleError as error:
        raise UserError(str(error)) from None
    if found.choice is None:
        raise UserError(f"no plan fits {memory}: {found.stopped}; name another memory budget with --around")
    return _contests(problem, _errors(evidence, problem), found.prices)


def pairs_of(
    evidence_groups: dict[str, tuple[str, ...]], open_: Sequence[Contest], exact: frozenset[Pair]
) -> list[Pair]:
    """The estimated (layer, scheme) of the contests, each once, in their order."""
    wanted = [
        (layer, scheme)
        for contest in open_
        for scheme in (contest.other, contest.best)
        for layer in evidence_groups[contest.group]
    ]
    return [pair for pair in dict.fromkeys(wanted) if pair not in exact and pair[1] != "keep"]


def to_measure(store: Profile, memory: str, count: int) -> list[Pair]:
    """The next so many estimates that a measurement would do most for; none where nothing is open."""
    groups = groups_of(read_evidence(store))
    return pairs_of(groups, contests(store, memory), store.measured("exhaustive"))[:count]


def _contests(problem: Problem, errors: np.ndarray, prices: Sequence[float]) -> list[Contest]:
    reduced = problem.costs.astype(float).copy()
    for budget, price in zip(problem.budgets, prices, strict=False):
        reduced += float(price) * problem.column(budget.column).astype(float)
    reduced[~problem.allowed] = math.inf
    found = []
    for number, group in enumerate(problem.groups):
        start, names = int(problem.offsets[number]), problem.candidates[number]
        mine = reduced[start : start + len(names)]
        best = int(mine.argmin())
        for place, name in enumerate(names):
            regret, error = mine[place] - mine[best], float(np.hypot(errors[start + place], errors[start + best]))
            if place != best and regret < Z * error:
                found.append(Contest(group, names[best], name, float(regret), error))
    return sorted(found, key=lambda contest: contest.regret / contest.error)


def _errors(evidence: Evidence, problem: Problem) -> np.ndarray:
    """The standard error of each candidate's objective: what it is at one standard error more, less what it is.

    Errors of several metrics so add up instead of cancelling, on the safe side. Unknown ones count as the loss itself.
    """
    sure = {
        key: replace(m, stderr=m.stderr if math.isfinite(m.stderr) else abs(m.mean))
        for key, m in evidence.losses.measurements.items()
    }
    above = replace(evidence, losses=LossTable(sure), z=1.0)
    return formulate(above, problem.objective, (), real=False).costs - problem.costs
