"""Moves noisy timings towards what the timings of other layers predict, so that a solver does not select lucky ones.

The smallest of several noisy timings is too small on average. Each logarithm of a timing is modelled as a term of the
layer, a term of the scheme, and a rest. The rest counts by the share of its variance that the timing errors do not
explain (empirical Bayes). A profile holds timings and errors as measured; whatever plans or shows them reads them here.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitplan.planner.profiles.profile import Cost

KEEP = "keep"  # what runs in place of a simulated scheme
FEWEST = 4  # distinct timings of a scheme below which its timings stay as they are
ROUNDS = 10
PRECISION = 24  # bits of a moved timing: on machines whose logarithms differ in the last bit, plans agree
_NORMAL = 0.4549  # median of the square of a standard normal variable
_SMALLEST, _LARGEST = 1e-9, 1e3  # relative errors beyond these count as these
Floats = NDArray[np.float64]


def steadied(costs: Sequence[Cost]) -> list[Cost]:
    """Return the costs with milliseconds of `steady_ms`."""
    steady = steady_ms(costs)
    return [
        cost
        if cost.ms == ms
        else Cost(cost.layer, cost.scheme, cost.bytes, ms, cost.kernel, cost.simulated, cost.error)
        for cost, ms in zip(costs, steady, strict=True)
    ]


def steady_ms(costs: Sequence[Cost]) -> list[float | None]:
    """Return the milliseconds of each cost, moved towards their predictions as far as their errors demand.

    Timings without an error stay as they are. Layers of one shape were timed once, so layers with equal timings count
    as one. A simulated scheme takes the time of full precision, because that was timed.
    """
    timed = [cost for cost in costs if cost.ms and cost.error]
    if not timed:
        return [cost.ms for cost in costs]
    rows = _numbered(cost.layer for cost in timed)
    columns = _numbered(KEEP if cost.simulated else cost.scheme for cost in timed)
    ms, error = (np.array([getattr(cost, name) for cost in timed], float) for name in ("ms", "error"))
    table, variance = np.full((2, rows.max() + 1, columns.max() + 1), np.nan)
    with np.errstate(over="ignore", under="ignore"):
        table[rows, columns] = np.log(ms)
        variance[rows, columns] = np.clip(error / ms, _SMALLEST, _LARGEST) ** 2
        moved, share = (side[rows, columns] for side in _moved(table, variance))
        steady = iter(np.where(share < 1, _rounded(np.exp(moved)), ms).tolist())
    return [next(steady) if cost.ms and cost.error else cost.ms for cost in costs]


def _numbered(names: Iterable[str]) -> NDArray[np.int64]:
    """Return the number of each name in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def _moved(table: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Return the (layers, schemes) logarithms after moving them, and the share by which each rest counts.

    table: nan stands for no timing.
    """
    distinct: dict[bytes, int] = {}
    place = np.array([distinct.setdefault(row.tobytes(), len(distinct)) for row in np.hstack([table, variance])])
    _, first = np.unique(place, return_index=True)
    moved, share = _moved_distinct(table[first], variance[first])
    return moved[place], share[place]


def _moved_distinct(table: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Return the same for layers that were timed apart."""
    layer, scheme = np.zeros((len(table), 1)), np.zeros(table.shape[1])
    for _ in range(ROUNDS):
        layer = np.nanmean(table - scheme, axis=1, keepdims=True)
        scheme = np.nanmedian(table - layer, axis=0)
    rest = table - layer - scheme
    known = int(np.isfinite(table).sum())
    free = max(known - sum(table.shape) + 1, 1)  # numbers that the terms of layers and schemes leave free
    between = max(float(np.nanmedian(rest**2)) / _NORMAL * known / free - float(np.nanmedian(variance)), 0.0)
    share = between / (between + variance)
    share[:, np.sum(np.isfinite(table), axis=0) < FEWEST] = 1.0
    return np.clip(layer + scheme + share * rest, np.nanmin(table), np.nanmax(table)), share


def _rounded(values: Floats) -> Floats:
    """Return the values with `PRECISION` bits."""
    fraction, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(np.ldexp(fraction, PRECISION)), exponent - PRECISION))
