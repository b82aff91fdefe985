"""What an accepted profile must hold, and its best plan by trying every choice; shares no code with BitPlan."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.world import rows

RESERVED = {"bytes", "ms", "quality", "alignment", "both", "memory", "latency", "bits"}
FAMILIES = {"quality", "alignment", "own"}
_SIDE = re.compile(r"a\d+t?(\+\w+)*$")
CLOSE = 1e-6  # relative difference of sums that count as equal


@dataclass(frozen=True)
class Stored:
    """The numbers of a profile as they are stored.

    Attributes:
        size, ms: (layer, scheme) -> bytes, milliseconds.
        loss: (layer, scheme) -> loss by the metric.
        real: the (layer, scheme) that a kernel runs.
        tied: layers that read one input.
    """

    size: Mapping[tuple[str, str], int]
    ms: Mapping[tuple[str, str], float]
    loss: Mapping[tuple[str, str], float]
    real: frozenset[tuple[str, str]]
    tied: Sequence[Sequence[str]]


def nonsense(path: Path) -> list[str]:
    """What an accepted profile must not hold: one text for each value that is out of its range."""
    try:
        return [*_costs(path), *_measurements(path), *_strangers(path)]
    except sqlite3.Error as error:
        return [f"the file cannot be read: {error}"]


def _number(kind: str, value: Any, least: float = 0.0) -> bool:
    return kind in ("integer", "real") and math.isfinite(value) and value >= least


def _costs(path: Path) -> list[str]:
    found = []
    query = "SELECT layer, scheme, typeof(bytes), bytes, typeof(ms), ms, typeof(simulated), simulated FROM costs"
    for layer, scheme, *values in rows(path, query):
        if values[0] != "integer" or values[1] < 0:
            found.append(f"bytes {str(values[1])[:40]!r} of {values[0]}")
        if values[2] != "null" and not _number(values[2], values[3]):
            found.append(f"ms {str(values[3])[:40]!r} of {values[2]}")
        if values[4] != "integer" or values[5] not in (0, 1):
            found.append(f"simulated {str(values[5])[:40]!r} of {values[4]}")
        if not isinstance(layer, str) or not isinstance(scheme, str):
            found.append(f"layer {layer!r} or scheme {scheme!r} of costs is no text")
    return found


def _measurements(path: Path) -> list[str]:
    found, family_of = [], {}
    query = ("SELECT metric, family, typeof(mean), mean, typeof(stderr), stderr, typeof(count), count, "
             "typeof(finite), finite FROM measurements")  # fmt: skip
    for metric, family, *values in rows(path, query):
        if not _number(values[0], values[1], -math.inf):
            found.append(f"mean {str(values[1])[:40]!r} of {values[0]}")
        if values[2] not in ("integer", "real") or not values[3] >= 0:
            found.append(f"stderr {str(values[3])[:40]!r} of {values[2]}")
        if values[4] != "integer" or values[5] < 1:
            found.append(f"count {str(values[5])[:40]!r} of {values[4]}")
        if values[6] != "integer" or values[7] not in (0, 1):
            found.append(f"finite {str(values[7])[:40]!r} of {values[6]}")
        if not isinstance(metric, str) or not metric or metric in RESERVED:
            found.append(f"metric named {str(metric)[:40]!r}")
        if family not in FAMILIES:
            found.append(f"family named {str(family)[:40]!r}")
        if family_of.setdefault(metric, family) != family:
            found.append("metric of two families")
    return found


def _strangers(path: Path) -> list[str]:
    """Rows of layers and schemes that the profile does not have, which a join would drop without a word."""
    found = []
    known = {
        "layer": {name for (name,) in rows(path, "SELECT address FROM layers")},
        "scheme": {name for (name,) in rows(path, "SELECT name FROM schemes")},
    }
    for table in ("costs", "measurements"):
        for column, names in known.items():
            strange = {name for (name,) in rows(path, f"SELECT DISTINCT {column} FROM {table}")} - names
            found += [f"{table} {str(name)[:40]!r} of an unknown {column}" for name in strange]
    return found


def stored(path: Path, metric: str) -> Stored:
    """The numbers of an accepted profile."""
    costs = list(rows(path, "SELECT layer, scheme, bytes, ms, simulated FROM costs"))
    found = rows(path, f"SELECT layer, scheme, mean FROM measurements WHERE metric = '{metric}'")
    ((tied,),) = rows(path, "SELECT value FROM graph WHERE key = 'shared_inputs'")
    return Stored(
        {(layer, scheme): size for layer, scheme, size, *_ in costs},
        {(layer, scheme): ms or 0.0 for layer, scheme, _, ms, _ in costs},
        {(layer, scheme): max(mean, 0.0) for layer, scheme, mean in found},
        frozenset((layer, scheme) for layer, scheme, *_, simulated in costs if not simulated),
        json.loads(tied),
    )  # fmt: skip


def sums(data: Stored, schemes: Mapping[str, str]) -> tuple[int, float]:
    """The bytes and the loss of a plan."""
    pairs = list(schemes.items())
    return sum(data.size[pair] for pair in pairs), math.fsum(data.loss.get(pair, 0.0) for pair in pairs)


def least(data: Stored, limit: int | float) -> float | None:
    """The least loss of any choice of at most so many bytes, in exact bytes; None where there is none."""
    layers = list(dict.fromkeys(layer for layer, _ in data.size))
    offered = [[s for name, s in data.size if name == layer and (layer, s) in data.real] for layer in layers]
    size, loss = np.zeros(1, object), np.zeros(1)
    sides = {layer: np.zeros(1, int) for layer in layers}
    words: dict[str, int] = {}
    for layer, names in zip(layers, offered, strict=True):
        own = np.array([words.setdefault(side_of(name), len(words)) for name in names], int)
        count = len(size)
        size = (size[:, None] + np.array([data.size[layer, name] for name in names], object)).ravel()
        loss = (loss[:, None] + np.array([data.loss.get((layer, name), 0.0) for name in names], float)).ravel()
        sides = {name: np.repeat(labels, len(names)) for name, labels in sides.items()}
        sides[layer] = np.tile(own, count)
    fits = np.array(size <= limit, bool)
    for group in data.tied:
        for other in group[1:]:
            fits &= sides[group[0]] == sides[other]
    return float(loss[fits].min()) if fits.any() else None


def side_of(scheme: str) -> str:
    """How a scheme stores inputs."""
    match = _SIDE.search(scheme)
    return match[0] if match else "a16"


def same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=1e-300)
