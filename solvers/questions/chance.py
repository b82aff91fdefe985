"""The least objective that holds with some certainty, where losses are measured with an error.

The sum of independent losses has the sum of their variances, so minimise mean + z * sqrt(variance) over choices. The
square root is concave: on the convex hull of (mean, variance) its least value is at a corner, a choice that minimises
mean + w * variance for some w >= 0 (Nikolova 2010, "Approximation algorithms for offline risk-averse combinatorial
optimization"). Corners are found between two known ones, at the weight of their chord (Eisner and Severance 1976,
"Mathematical techniques for efficient record segmentation in large shared databases"), but only where the lines that
support both leave room for a lower value. Choices inside the hull are not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bitplan.solvers.problem import Problem, ProblemError
from bitplan.solvers.solution import PROVEN, Solution
from bitplan.solvers.solve import solve

ROUNDS = 30


@dataclass(frozen=True)
class Robust:
    """value: mean + z * sqrt(variance) of the solution's choice; weight: of the variance that led to it, inf where
    nothing else was weighed."""

    solution: Solution
    value: float
    weight: float
    mean: float
    variance: float


def least_risk(
    problem: Problem, variance: str, z: float, *, time_limit: float = 60.0, backend: str | None = None
) -> Robust:
    """The best choice of the hull for objective + z * sqrt(sum of `variance`).

    variance: a column, in squared units of the objective; z: standard errors of certainty, 1.64 for 95 %; time_limit:
    seconds for each of up to ROUNDS solves. Raises ProblemError, and NoSolutionError where no choice is within the
    budgets.
    """
    problem.column(variance)
    if not 0 <= z < math.inf:
        raise ProblemError(f"z is {z}; expected a finite number of standard errors >= 0")

    def at(weight: float) -> Robust:
        return _at(problem, variance, z, weight, time_limit, backend)

    first = at(0.0)
    if z == 0 or first.variance == 0:
        return first
    last = at(math.inf)
    best, spans = min(first, last, key=_value), [(_room(first, last, z), first, last)]
    for _ in range(ROUNDS - 2):
        room, low, high = spans.pop()
        if room >= best.value * (1 - PROVEN):
            break
        middle = at(_chord(low, high))
        best = min(best, middle, key=_value)
        if _below(middle, low):
            spans += [(_room(low, middle, z), low, middle), (_room(middle, high, z), middle, high)]
        if not spans:
            break
        spans.sort(key=lambda span: -span[0])
    return best


def _at(problem: Problem, variance: str, z: float, weight: float, time_limit: float, backend: str | None) -> Robust:
    weights = problem.objective if math.isfinite(weight) else dict.fromkeys(problem.objective, 0.0)
    own = weight if math.isfinite(weight) else 1.0
    priced = replace(problem, objective={**weights, variance: weights.get(variance, 0.0) + own})
    solution = solve(priced, time_limit=time_limit, backend=backend)
    mean = math.fsum(share * solution.totals[name] for name, share in problem.objective.items())
    spread = float(solution.totals[variance])
    return Robust(solution, mean + z * math.sqrt(spread), weight, mean, spread)


def _value(robust: Robust) -> float:
    return robust.value


def _chord(low: Robust, high: Robust) -> float:
    """The weight at which both cost the same."""
    return (high.mean - low.mean) / (low.variance - high.variance)


def _room(low: Robust, high: Robust, z: float) -> float:
    """What no corner between the two is below: the value where the lines that support them meet."""
    if low.variance <= high.variance or high.mean <= low.mean:
        return math.inf
    base = low.mean + low.weight * low.variance
    meet = high.variance
    if math.isfinite(high.weight):
        meet = (high.mean + high.weight * high.variance - base) / (high.weight - low.weight)
    meet = min(max(meet, high.variance), low.variance)
    return base - low.weight * meet + z * math.sqrt(meet)


def _below(middle: Robust, low: Robust) -> bool:
    """Whether it lies under the chord, rather than on it."""
    chord = low.mean + middle.weight * low.variance
    return middle.mean + middle.weight * middle.variance < chord * (1 - PROVEN)
