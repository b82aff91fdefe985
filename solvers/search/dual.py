"""Maximisation of the Lagrangian bound; points near the maximum are kept too, for fixing and repair.

With one budget, the next price is where the two lines that bracket the maximum meet; this ends at the maximum itself.
With several budgets, the method is cutting planes at analytic centres (Goffin, Haurie and Vial 1992, "Decomposition and
nondifferentiable optimization with the projective algorithm"): each point gives a plane above the dual function, and
the next prices are the analytic centre of the region between these planes and the best bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitplan.solvers.search.core import Core, Floats
from bitplan.solvers.search.relaxation import DualPoint, relax

MOST_POINTS = 60
LEAST_GAIN = 0.01  # share of the gap: a centre that can raise the bound by less ends the search
NEWTON = 30  # steps to a centre
_WIDENINGS = 80
_TINY = float(np.finfo(np.float64).tiny)  # the least unit of prices: quotients by smaller ones are not finite
_BOX = 4.0  # upper limit of the prices, in multiples of each budget's price alone


@dataclass(frozen=True)
class Planes:
    """Half-spaces a . z <= b, where z holds the scaled prices and the scaled bound."""

    a: Floats
    b: Floats


def ascend(core: Core, start: Floats | None = None, most: float = math.inf) -> list[DualPoint]:
    """Return points of rising bound, the best last. start: (B,) initial prices; most: the cost of a known choice."""
    first = relax(core, np.zeros(len(core.slack)))
    if (first.weight <= core.slack).all():
        return [first]
    alone = [_alone(core, first, budget) for budget in range(len(core.slack))]
    known = [point for points in alone for point in points]
    if len(alone) == 1:
        return _rising(known)
    if start is not None:
        known.append(relax(core, start))
    return _rising(known + _centres(core, known, _units(core, alone), most))


def _rising(points: list[DualPoint]) -> list[DualPoint]:
    return sorted(points, key=lambda point: point.value)


def _alone(core: Core, first: DualPoint, budget: int) -> list[DualPoint]:
    """Return the points of a maximisation over the price of one budget, with all other prices at 0."""
    excess = first.weight[budget] - core.slack[budget]
    if excess <= 0:
        return [first]
    axis = np.zeros(len(core.slack))
    axis[budget] = (float(core.cost.max()) or 1.0) / (float(core.weight[:, budget].max()) or 1.0) * 1e-3
    low, high = first, relax(core, axis)
    points = [low]
    for _ in range(_WIDENINGS):
        points.append(high)
        if high.weight[budget] <= core.slack[budget]:
            break
        low, axis = high, axis * 4
        high = relax(core, axis)
    while low.weight[budget] > high.weight[budget]:
        price = (high.cost - low.cost) / (low.weight[budget] - high.weight[budget])
        meet = low.cost + price * (low.weight[budget] - core.slack[budget])
        axis = np.zeros(len(core.slack))
        axis[budget] = price
        point = relax(core, axis)
        points.append(point)
        if point.value >= meet - 1e-12 * abs(meet) or len(points) > 4 * _WIDENINGS:
            break
        low, high = (point, high) if point.weight[budget] > core.slack[budget] else (low, point)
    return points


def _units(core: Core, alone: list[list[DualPoint]]) -> Floats:
    """Return a price of the right magnitude for each budget, by which prices are scaled."""
    prices = np.array([max(points, key=lambda p: p.value).prices[i] for i, points in enumerate(alone)])
    slack = np.where(core.slack > 0, core.slack, 1.0)
    value = float((prices * slack).max()) or float(core.cost.max()) or 1.0
    return np.maximum(np.where(prices > 0, prices, value / slack), _TINY)


def _centres(core: Core, known: list[DualPoint], units: Floats, most: float) -> list[DualPoint]:
    points: list[DualPoint] = []
    best = max(known, key=lambda point: point.value)
    scale = abs(best.value) or float(core.cost.max()) or 1.0
    box = np.full(len(units), _BOX)
    centre = np.append(best.prices / units + 0.1, best.value / scale)
    for _ in range(MOST_POINTS):
        centre = _centre(_planes(core, known + points, units, (scale, box, best.value)), centre)
        points.append(relax(core, np.maximum(centre[:-1], 0) * units))
        gain = centre[-1] * scale - best.value
        best = max(best, points[-1], key=lambda point: point.value)
        box = np.where(best.prices / units > 0.8 * box, 4 * box, box)
        if gain <= max(LEAST_GAIN * (most - best.value) if math.isfinite(most) else 0.0, 1e-7 * scale):
            break
    return points


def _planes(core: Core, points: list[DualPoint], units: Floats, frame: tuple[float, Floats, float]) -> Planes:
    """Return the region below each point's plane and above the best bound, with prices between 0 and the box."""
    (scale, box, floor), count = frame, len(units)
    slope = np.array([(point.weight - core.slack) * units / scale for point in points])
    cuts = np.column_stack([-slope, np.ones(len(points))])
    level = np.array([point.cost / scale for point in points])
    axes = np.eye(count, count + 1)
    lowest = np.append(np.zeros(count), -1.0)
    a = np.vstack([cuts, -axes, axes, lowest])
    return Planes(a, np.concatenate([level, np.zeros(count), box, [-floor / scale]]))


def _centre(planes: Planes, start: Floats) -> Floats:
    """Return the analytic centre by Newton steps from a point that may be infeasible (Boyd and Vandenberghe, 10.3)."""
    a, b, z = planes.a, planes.b, start
    s = np.maximum(b - a @ z, 1e-3)
    for _ in range(NEWTON):
        off = a @ z + s - b
        scaled = a / s[:, None]
        step = np.linalg.lstsq(scaled.T @ scaled, -(a.T @ (1 / s)) - a.T @ (off / s**2), rcond=None)[0]
        move = -off - a @ step
        shrinking = move < 0
        length = min(1.0, 0.95 * float((-s[shrinking] / move[shrinking]).min(initial=np.inf)))
        z, s = z + length * step, s + length * move
        if length == 1.0 and float(np.abs(move / s).max()) < 1e-2:
            break
    return z
