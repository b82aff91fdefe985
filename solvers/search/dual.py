"""The best prices: the largest Lagrangian bound, and points near it, each useful for fixing and repair.

One budget: the two lines that bracket the maximum meet at the next price, which ends at the maximum itself. Several:
cutting planes at analytic centres (Goffin, Haurie and Vial 1992, "Decomposition and nondifferentiable optimization with
the projective algorithm"): each bound is a plane above the dual function; the next prices are the analytic centre of
what the planes and the best bound leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitplan.solvers.search.core import Core, Floats
from bitplan.solvers.search.lagrangian import DualPoint, relax

MOST_POINTS = 60
SETTLED = 0.01  # of the gap: a centre that promises less ends the search
NEWTON = 30
_DOUBLINGS = 80
_ROOM = 4.0  # the box of prices, in multiples of each budget's price alone


@dataclass(frozen=True)
class Planes:
    """Half-spaces a . z <= b around (prices in units, bound in units)."""

    a: Floats
    b: Floats


def ascend(core: Core, start: Floats | None = None, most: float = math.inf) -> list[DualPoint]:
    """Points of rising bound, the best last. start: prices (B,) to begin with; most: the cost of a known choice."""
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
    """The maximum along the price of one budget, the others free of charge."""
    excess = first.weight[budget] - core.slack[budget]
    if excess <= 0:
        return [first]
    axis = np.zeros(len(core.slack))
    axis[budget] = (float(core.cost.max()) or 1.0) / (float(core.weight[:, budget].max()) or 1.0) * 1e-3
    low, high = first, relax(core, axis)
    found = [low]
    for _ in range(_DOUBLINGS):
        found.append(high)
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
        found.append(point)
        if point.value >= meet - 1e-12 * abs(meet) or len(found) > 4 * _DOUBLINGS:
            break
        low, high = (point, high) if point.weight[budget] > core.slack[budget] else (low, point)
    return found


def _units(core: Core, alone: list[list[DualPoint]]) -> Floats:
    """A price of each budget that is neither tiny nor huge."""
    prices = np.array([max(points, key=lambda p: p.value).prices[i] for i, points in enumerate(alone)])
    slack = np.where(core.slack > 0, core.slack, 1.0)
    worth = float((prices * slack).max()) or float(core.cost.max()) or 1.0
    return np.where(prices > 0, prices, worth / slack)


def _centres(core: Core, known: list[DualPoint], units: Floats, most: float) -> list[DualPoint]:
    found: list[DualPoint] = []
    best = max(known, key=lambda point: point.value)
    scale = abs(best.value) or float(core.cost.max()) or 1.0
    room = np.full(len(units), _ROOM)
    centre = np.append(best.prices / units + 0.1, best.value / scale)
    for _ in range(MOST_POINTS):
        centre = _centre(_planes(core, known + found, units, (scale, room, best.value)), centre)
        found.append(relax(core, np.maximum(centre[:-1], 0) * units))
        promise = centre[-1] * scale - best.value
        best = max(best, found[-1], key=lambda point: point.value)
        room = np.where(best.prices / units > 0.8 * room, 4 * room, room)
        if promise <= max(SETTLED * (most - best.value) if math.isfinite(most) else 0.0, 1e-7 * scale):
            break
    return found


def _planes(core: Core, points: list[DualPoint], units: Floats, frame: tuple[float, Floats, float]) -> Planes:
    """Bounds below each point's plane, above the best one, prices between 0 and the room."""
    (scale, room, floor), count = frame, len(units)
    slope = np.array([(point.weight - core.slack) * units / scale for point in points])
    cuts = np.column_stack([-slope, np.ones(len(points))])
    level = np.array([point.cost / scale for point in points])
    box = np.eye(count, count + 1)
    lowest = np.append(np.zeros(count), -1.0)
    a = np.vstack([cuts, -box, box, lowest])
    return Planes(a, np.concatenate([level, np.zeros(count), room, [-floor / scale]]))


def _centre(planes: Planes, start: Floats) -> Floats:
    """The analytic centre by Newton steps from a point that may lie outside (Boyd and Vandenberghe, section 10.3)."""
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
