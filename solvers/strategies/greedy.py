"""Greedy by loss per unit of budget: a quick answer, an incumbent for the exact search, a baseline in tables.

Start from the least objective; while a budget is broken, take the step that mends most for the least objective; then
take back what still fits. Groups under a tie move together, over choices that are best for some price of the budgets.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.certify import violations
from bitplan.solvers.problem import Mask, Picks, Problem
from bitplan.solvers.reduction.ties import Bundle, bundles, labellings
from bitplan.solvers.solution import Choice, Solution, choice_of
from bitplan.solvers.solve import solution_of
from bitplan.solvers.strategies.base import Effort, begin, met

PRICES = (0.0, *np.geomspace(1e-6, 1e6, 25).tolist())
_DUST = 1e-12  # of a budget: no step that mends less is worth a move


@dataclass(frozen=True)
class _GreedyOptions:
    """M things that U bundles can choose. unit (M,), cost (M,), weight (M, B) in budgets, what each picks."""

    unit: NDArray[np.int64]
    cost: NDArray[np.float64]
    weight: NDArray[np.float64]
    picks: list[Picks]


def greedy(problem: Problem, keep: Mask | None = None) -> Choice | None:
    """A choice within every budget, certified, or None where this search finds none (there may be one all the same)."""
    keep = problem.allowed if keep is None else keep
    options, limits = _options(problem, keep)
    count = len(bundles(problem))
    if len(np.unique(options.unit)) < count:
        return None
    current = np.full(count, -1)
    order = np.lexsort((options.weight.sum(axis=1), options.cost))[::-1]
    current[options.unit[order]] = order
    current = _mend(options, limits, current)
    current = _improve(options, limits, current)
    flat = sorted(pick for option in current for pick in options.picks[option])
    return None if violations(problem, tuple(flat)) else choice_of(problem, tuple(flat))


def _options(problem: Problem, keep: Mask) -> tuple[_GreedyOptions, NDArray[np.float64]]:
    weight, limits = _weights(problem)
    pressure = weight.sum(axis=1)
    unit: list[int] = []
    picks: list[Picks] = []
    for number, bundle in enumerate(bundles(problem)):
        found = _of_bundle(problem, bundle, keep, pressure)
        unit += [number] * len(found)
        picks += found
    cost = np.array([problem.costs[list(pick)].sum() for pick in picks])
    total = np.array([weight[list(pick)].sum(axis=0) for pick in picks]).reshape(len(picks), weight.shape[1])
    return _GreedyOptions(np.array(unit, dtype=np.int64), cost, total, picks), limits


def _weights(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns of the budgets (C, B) and their limits (B,), each in units of its limit."""
    columns = [problem.column(budget.column).astype(np.float64) for budget in problem.budgets]
    units = [abs(float(b.limit)) or float(v.max()) or 1.0 for b, v in zip(problem.budgets, columns, strict=True)]
    weight = np.array([v / unit for v, unit in zip(columns, units, strict=True)]).reshape(len(units), problem.size).T
    return weight, np.array([float(b.limit) / unit for b, unit in zip(problem.budgets, units, strict=True)])


def _of_bundle(problem: Problem, bundle: Bundle, keep: Mask, pressure: NDArray[np.float64]) -> list[Picks]:
    if not bundle.ties:
        return [(c,) for c in problem.members(bundle.places[0]) if keep[c]]
    found: dict[Picks, None] = {}
    unit = float(np.ptp(problem.costs)) or 1.0
    for left in labellings(problem, bundle, keep):
        for price in PRICES:
            scores = [problem.costs[c] / unit + price * pressure[c] for c in left]
            found[tuple(int(c[score.argmin()]) for c, score in zip(left, scores, strict=True))] = None
        found[tuple(int(c[pressure[c].argmin()]) for c in left)] = None
    return list(found)


def _mend(options: _GreedyOptions, limits: NDArray[np.float64], current: NDArray[np.int64]) -> NDArray[np.int64]:
    for _ in range(20 * len(current)):
        total = options.weight[current].sum(axis=0)
        broken = np.maximum(total - limits, 0).sum()
        if not broken:
            break
        now = current[options.unit]
        after = total + options.weight - options.weight[now]
        mended = broken - np.maximum(after - limits, 0).sum(axis=1)
        useful = mended > _DUST
        if not useful.any():
            break
        price = np.where(useful, (options.cost - options.cost[now]) / np.where(useful, mended, 1), np.inf)
        current = _step(options, current, int(price.argmin()))
    return current


def _improve(options: _GreedyOptions, limits: NDArray[np.float64], current: NDArray[np.int64]) -> NDArray[np.int64]:
    for _ in range(20 * len(current)):
        now = current[options.unit]
        after = options.weight[current].sum(axis=0) + options.weight - options.weight[now]
        saved = np.where((after <= limits).all(axis=1), options.cost[now] - options.cost, 0)
        best = int(saved.argmax())
        if saved[best] <= 0:
            break
        current = _step(options, current, best)
    return current


def _step(options: _GreedyOptions, current: NDArray[np.int64], option: int) -> NDArray[np.int64]:
    moved = current.copy()
    moved[options.unit[option]] = option
    return moved


def run(problem: Problem, effort: Effort) -> Solution:
    """Takes no longer than it takes: the effort is not looked at."""
    start = time.monotonic()
    core, state = begin(problem)
    if core is not None and not state.infeasible and state.choice is None:
        found = greedy(problem)
        state = met(problem, state, found.picks if found else None, "greedy")
    return solution_of(state, time.monotonic() - start, "greedy")
