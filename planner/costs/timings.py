"""Moves noisy timings towards what the timings of other layers predict, so that a solver does not select lucky ones.

The smallest of several noisy timings is too small on average. Each logarithm of a timing is modelled as a term of the
layer's shape, a term of the scheme, and a rest. The rest counts by the share of its variance that the timing errors do
not explain (empirical Bayes).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitplan.planner.graph.layers import LayerGraph
from bitplan.planner.profiles.profile import Cost

Pair = tuple[str, str]
FEWEST = 4  # shapes of a scheme below which its timings stay as they are
ROUNDS = 20
_NORMAL = 0.4549  # median of the square of a standard normal variable
Floats = NDArray[np.float64]


def steadied(costs: Sequence[Cost], graph: LayerGraph) -> list[Cost]:
    """Return the costs with milliseconds as `shrunk` gives them; those without an error as they are."""
    ms = {(cost.layer, cost.scheme): cost.ms or 0.0 for cost in costs}
    errors = {(cost.layer, cost.scheme): cost.error or 0.0 for cost in costs}
    steady = shrunk(ms, errors, shapes_of(graph))
    return [replace(c, ms=steady[c.layer, c.scheme]) if c.ms and c.error else c for c in costs]


def shapes_of(graph: LayerGraph) -> dict[str, Hashable]:
    """Return layer -> what its timings depend on."""
    return {each.address: (each.kind, each.weight, each.geometry, each.calls) for each in graph.layers}


def shrunk(ms: Mapping[Pair, float], errors: Mapping[Pair, float], shapes: Mapping[str, Hashable]) -> dict[Pair, float]:
    """Return the timings, moved towards their predictions as far as their errors demand.

    Args:
        ms: (layer, scheme) -> milliseconds.
        errors: (layer, scheme) -> standard error; timings without one stay as they are.
        shapes: layer -> what its timings depend on; layers of one shape were timed once.
    """
    timed = {(shapes[pair[0]], pair[1]): pair for pair in ms if ms[pair] > 0 and errors.get(pair, 0.0) > 0}
    if not timed:
        return dict(ms)
    rows, columns = (list(dict.fromkeys(key[side] for key in timed)) for side in (0, 1))
    table, variance = np.full((2, len(rows), len(columns)), np.nan)
    for (shape, scheme), pair in timed.items():
        place = rows.index(shape), columns.index(str(scheme))
        table[place], variance[place] = np.log(ms[pair]), (errors[pair] / ms[pair]) ** 2
    result = np.exp(_moved(table, variance))
    place_of = {key: (rows.index(key[0]), columns.index(str(key[1]))) for key in timed}
    keys = {pair: (shapes[pair[0]], pair[1]) for pair in ms}
    return {pair: float(result[place_of[keys[pair]]]) if keys[pair] in timed else ms[pair] for pair in ms}


def _moved(table: Floats, variance: Floats) -> Floats:
    """Return the (shapes, schemes) logarithms after moving them; nan stands for no timing."""
    shape, scheme = np.zeros((len(table), 1)), np.zeros(table.shape[1])
    for _ in range(ROUNDS):
        shape = np.nanmean(table - scheme, axis=1, keepdims=True)
        scheme = np.nanmedian(table - shape, axis=0)
    rest = table - shape - scheme
    known = int(np.isfinite(table).sum())
    free = max(known - sum(table.shape) + 1, 1)  # numbers that the terms of shapes and schemes leave free
    between = max(float(np.nanmedian(rest**2)) / _NORMAL * known / free - float(np.nanmedian(variance)), 0.0)
    share = np.divide(between, between + variance)
    share[:, np.sum(np.isfinite(table), axis=0) < FEWEST] = 1.0
    return np.asarray(shape + scheme + share * rest)
