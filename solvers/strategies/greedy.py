"""Greedy steps by loss per unit of budget: a fast answer without a proof, and a baseline in tables.

Start from the least objective. While a budget is exceeded, take the step that adds the least objective for each unit of
excess that it removes; then take the steps that save most and still fit. Tied groups move together, over choices that
are best at some price of the budgets.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Mask, Picks, Problem
from bitplan.solvers.reduction.ties import Bundle, bundles, labellings
from bitplan.solvers.solution import Choice, Solution, choice_of
from bitplan.solvers.solve import solution_of
from bitplan.solvers.strategies.base import accept, begin

PRICES = (0.0, *np.geomspace(1e-6, 1e6, 25).tolist())
_LEAST = 1e-12  # share of a budget: a step that removes less excess is not considered


@dataclass(frozen=True)
class _GreedyOptions:
    """The M options of all U bundles.

    Attributes:
        unit: (M,) the bundle of each option.
        cost: (M,) its objective.
        weight: (M, B) its budget columns, in units of the limits.
        picks: its flat candidates.
    """

    unit: NDArray[np.int64]
    cost: NDArray[np.float64]
    weight: NDArray[np.float64]
    picks: list[Picks]


def greedy(problem: Problem, keep: Mask | None = None) -> Choice | None:
    """Return a certified choice within every budget, or None where this search finds none, though one may exist."""
    keep = problem.allowed if keep is None else keep
    options, limits = _options(problem, keep)
    count = len(bundles(problem))
    if len(np.unique(options.unit)) < count:
        return None
    current = np.full(count, -1)
    order = np.lexsort((options.weight.sum(axis=1), options.cost))[::-1]
    current[options.unit[order]] = order
    current = _reduce_excess(options, limits, current)
    current = _improve(options, limits, current)
    flat = sorted(pick for option in current for pick in options.picks[option])
    return None if violations(problem, tuple(flat)) else choice_of(problem, tuple(flat))


def _options(problem: Problem, keep: Mask) -> tuple[_GreedyOptions, NDArray[np.float64]]:
    weight, limits = _weights(problem)
    pressure = weight.sum(axis=1)
    unit: list[int] = []
    picks: list[Picks] = []
    for number, bundle in enumerate(bundles(problem)):
        choices = _bundle_choices(problem, bundle, keep, pressure)
        unit += [number] * len(choices)
        picks += choices
    cost = np.array([problem.costs[list(pick)].sum() for pick in picks])
    total = np.array([weight[list(pick)].sum(axis=0) for pick in picks]).reshape(len(picks), weight.shape[1])
    return _GreedyOptions(np.array(unit, dtype=np.int64), cost, total, picks), limits


def _weights(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the columns of the budgets (C, B) and their limits (B,), each in units of its limit."""
    columns = [problem.column(budget.column).astype(np.float64) for budget in problem.budgets]
    units = [abs(float(b.limit)) or float(v.max()) or 1.0 for b, v in zip(problem.budgets, columns, strict=True)]
    weight = np.array([v / unit for v, unit in zip(columns, units, strict=True)]).reshape(len(units), problem.size).T
    return weight, np.array([float(b.limit) / unit for b, unit in zip(problem.budgets, units, strict=True)])


def _bundle_choices(problem: Problem, bundle: Bundle, keep: Mask, pressure: NDArray[np.float64]) -> list[Picks]:
    """Return the choices of a bundle that are best at some price. pressure: (C,) the sum of the scaled columns."""
    if not bundle.ties:
        return [(c,) for c in problem.members(bundle.places[0]) if keep[c]]
    choices: dict[Picks, None] = {}
    unit = float(np.ptp(problem.costs)) or 1.0
    for members in labellings(problem, bundle, keep):
        for price in PRICES:
            scores = [problem.costs[c] / unit + price * pressure[c] for c in members]
            choices[tuple(int(c[score.argmin()]) for c, score in zip(members, scores, strict=True))] = None
        choices[tuple(int(c[pressure[c].argmin()]) for c in members)] = None
    return list(choices)


def _reduce_excess(
    options: _GreedyOptions, limits: NDArray[np.float64], current: NDArray[np.int64]
) -> NDArray[np.int64]:
    for _ in range(20 * len(current)):
        total = options.weight[current].sum(axis=0)
        excess = np.maximum(total - limits, 0).sum()
        if not excess:
            break
        now = current[options.unit]
        after = total + options.weight - options.weight[now]
        removed = excess - np.maximum(after - limits, 0).sum(axis=1)
        useful = removed > _LEAST
        if not useful.any():
            break
        price = np.where(useful, (options.cost - options.cost[now]) / np.where(useful, removed, 1), np.inf)
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
    """Solve by greedy steps; they are fast, so the effort is ignored."""
    start = time.monotonic()
    core, state = begin(problem)
    if core is not None and not state.infeasible and state.choice is None:
        choice = greedy(problem)
        state = accept(problem, state, choice.picks if choice else None, "greedy")
    return solution_of(state, time.monotonic() - start, "greedy")
