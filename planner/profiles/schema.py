"""Checks the contents of a profile when it is opened, whoever reads it afterwards. Imports no torch.

The schemas of the JSON values are here, those of rows in `rules`. A profile that is still being measured is valid.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from bitplan.planner.graph.layers import ROLES, UNKNOWN
from bitplan.planner.profiles.rules import LOSS, LOSSES, RESERVED, RULES, UNKEPT
from bitplan.plans.checks import (
    DIGEST,
    VARIANT,
    WHOLE,
    Check,
    Wrong,
    either,
    flag,
    list_of,
    mapping_of,
    name,
    number,
    one_of,
    optional,
    plain,
    record,
    shown,
    text,
    whole,
)
from bitplan.plans.dtypes import FLOATS
from bitplan.plans.kinds import KINDS
from bitplan.plans.reading import parse_json
from bitplan.plans.scheme import SchemeError, parse_scheme
from bitplan.sensitivity.metrics import METRICS

_NAMES = list_of(name())
_SHAPE = list_of(whole(0), 0, 16)
_ANY = plain()
_MODEL = record(
    {"name": text(1000), "fingerprint": DIGEST, "architecture": DIGEST, "components": _NAMES},
    {"pipeline": text(1000), "dtype": one_of(FLOATS), "variant": VARIANT},
    _ANY,
)
_SETTINGS = record(
    {"prompts": list_of(_ANY, 1)},
    {"components": _NAMES, "schemes": _NAMES, "metrics": _NAMES, "generation": mapping_of(_ANY)},
    _ANY,
)
HEADER = record({"model": _MODEL, "settings": _SETTINGS}, {"machine": mapping_of(_ANY), "versions": mapping_of(_ANY)},
                _ANY)  # fmt: skip


_SIZES = list_of(whole(0, 2**31), 1, 6)
_GEOMETRY = record(
    {"stride": list_of(whole(1, 2**31), 1, 3), "dilation": list_of(whole(1, 2**31), 1, 3),
     "padding": either(one_of(("same", "valid")), _SIZES, "a list of sizes, same or valid")},
    {"groups": whole(1), "padding_mode": one_of(("zeros", "reflect", "replicate", "circular"))},
)  # fmt: skip
_CALL = record({"input": _SHAPE, "output": _SHAPE, "macs": whole(0, 2**63), "count": whole(1)})
FACTS = record(
    {
        "address": name(), "aliases": _NAMES, "kind": one_of(KINDS), "weight": list_of(whole(1), 2, 5), "bias": flag,
        "parameters": whole(1), "geometry": optional(_GEOMETRY), "calls": list_of(_CALL),
    },
    {"role": one_of((UNKNOWN, *ROLES)), "held": text(1000), "runs": whole(1), "reached": whole(0)},
)  # fmt: skip
_PART = record({"name": name(), "calls": whole(0), "iterates": flag,
                "inputs": list_of(list_of(text(1000), 2, 2))})  # fmt: skip
GRAPH: Mapping[str, Check] = {
    "edges": list_of(list_of(name(), 2, 2)), "shared_inputs": list_of(list_of(name(), 2)),
    "tied": list_of(list_of(name(), 2)), "unused": _NAMES, "parts": list_of(_PART),
    "reasons": list_of(list_of(text(), 2, 2)),
}  # fmt: skip
_REQUIRED_OF_GRAPH = ("edges", "shared_inputs", "tied", "unused")
_DISJOINT = ("shared_inputs", "tied")  # its groups of layers
_BETWEEN_LAYERS = ("edges", "shared_inputs", "tied")  # parts of the graph that name layers only


_MAGNITUDE = number(0)
RANGE = record(
    {},
    {
        "absmax": _MAGNITUDE, "first_absmax": optional(_MAGNITUDE), "rest_absmax": optional(_MAGNITUDE),
        "first_constant": flag, "calls": whole(), "samples": whole(),
    },
)  # fmt: skip
_READING = record({"strata": list_of(whole(-WHOLE)), "clusters": list_of(whole(-WHOLE)), "signed": flag})
_CORRECTION = record({**dict.fromkeys(("bias", "slope", "centre", "low", "high"), number()),
                      "scatter": _MAGNITUDE, "checks": whole(), "applies": flag})  # fmt: skip
BASELINE: Mapping[str, Check] = {
    "probed": record({"prompts": whole(), "readings": mapping_of(_READING)}, {"unreached": _NAMES, "idle": _NAMES}),
    "corrections": mapping_of(_CORRECTION),
    "int8 products": text(1000),
    "timed on": text(1000),
    "component bytes": mapping_of(whole()),
}


def first_problem(db: sqlite3.Connection) -> str | None:
    """Returns what is wrong in a profile's contents, with its place, or None. Raises sqlite3.Error."""
    return next(_problems(db), None)


def _problems(db: sqlite3.Connection) -> Iterator[str]:
    tables = {table for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for table in RULES:
        if table in tables:
            yield from _row_problems(db, table)
    yield from _values_problems(db)
    yield from _scheme_problems(db)
    yield from _loss_problems(db)
    for (layer,) in db.execute(UNKEPT):
        yield f"costs: {shown(layer)} has no cost of the scheme keep, and a finished profile has one for each layer"
    yield from _response_problems(db)


def _row_problems(db: sqlite3.Connection, table: str) -> Iterator[str]:
    """The first row that breaks a rule: few passes over the table, a further one only to say which rule it is."""
    keys, every_rule = RULES[table]
    present = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}  # older formats have fewer columns
    rules = [rule for rule in every_rule if rule.column in present]
    every = " AND ".join(f"({rule.holds})" for rule in rules if not rule.repeats) or "1"
    queries = [f"SELECT 1 FROM {table} WHERE ({every}) IS NOT 1 LIMIT 1"]
    queries += [
        f"SELECT 1 FROM (SELECT DISTINCT {rule.column} FROM {table}) WHERE ({rule.holds}) IS NOT 1 LIMIT 1"
        for rule in rules
        if rule.repeats
    ]
    if all(db.execute(query).fetchone() is None for query in queries):
        return
    for rule in rules:
        columns = ", ".join(
            f"CASE WHEN typeof({key}) IN ('text', 'blob') THEN substr({key}, 1, 80) ELSE {key} END"
            for key in (*keys, rule.column)
        )
        row = db.execute(f"SELECT {columns}, typeof({rule.column}) FROM {table} WHERE ({rule.holds}) IS NOT 1 LIMIT 1")
        if found := row.fetchone():
            *named, value, kind = found
            where = " / ".join(each if isinstance(each, str) and each.isprintable() else shown(each) for each in named)
            yield f"{table}, row {where}: {rule.column} is {shown(value)} ({kind}); it must be {rule.needs}"


def _values_problems(db: sqlite3.Connection) -> Iterator[str]:
    """What is wrong in the JSON values."""
    yield from _json_problems("header", _as_mapping(db, "header"), HEADER)
    rows = dict(db.execute("SELECT address, facts FROM layers"))
    addresses = set(rows)
    yield from _facts_problems(rows)
    yield from _graph_problems(_as_mapping(db, "graph"), addresses)
    for key, value in db.execute("SELECT key, value FROM baseline"):
        yield from _json_problem(f"baseline, row {key[:160]}", value, BASELINE.get(key, _ANY))
    for layer, value in db.execute("SELECT layer, value FROM ranges"):
        yield from _json_problem(f"ranges, row {layer[:160]}", value, RANGE)


def _facts_problems(rows: Mapping[str, str]) -> Iterator[str]:
    """What is wrong in the facts of layers. Where texts differ in their address alone, the first is checked."""
    right: set[str] = set()
    for address, facts in rows.items():
        start = f'{{"address": {json.dumps(address)}, '
        rest = facts[len(start) :] if facts.startswith(start) else facts
        # a key that comes again, also as an escape, would count instead of the one at the start
        known = rest is not facts and '"address"' not in rest and "\\" not in rest
        if known and rest in right and address.isprintable():
            continue
        yield from _json_problem(f"layers, row {address[:160]}", facts, partial(_check_facts, address))
        right |= {rest} if known else set()


def _graph_problems(values: Mapping[str, str], addresses: set[str]) -> Iterator[str]:
    if missing := [key for key in _REQUIRED_OF_GRAPH if addresses and key not in values]:
        yield f"graph: the row {missing[0]} is missing"
    for key, value in values.items():
        yield from _json_problem(f"graph, row {key[:160]}", value, partial(_check_graph, addresses, key))


def _json_problems(table: str, values: Mapping[str, str], check: Check) -> Iterator[str]:
    """What is wrong in a table that holds one mapping, a key a row."""
    data: dict[str, Any] = {}
    for key, value in values.items():
        yield from _json_problem(f"{table}, row {key[:160]}", value, _nothing)
        data[key] = parse_json(value)
    try:
        check(data)
    except Wrong as wrong:
        yield f"{table}, {wrong}"


def _json_problem(place: str, value: str, check: Check) -> Iterator[str]:
    try:
        check(parse_json(value))
    except Wrong as wrong:
        yield f"{place}, {wrong}"
    except ValueError as error:
        yield f"{place}: it is not JSON ({error})"


def _scheme_problems(db: sqlite3.Connection) -> Iterator[str]:
    for (scheme,) in db.execute("SELECT name FROM schemes"):
        try:
            parse_scheme(scheme)
        except SchemeError as refused:
            yield f"schemes: {refused}"


def _response_problems(db: sqlite3.Connection) -> Iterator[str]:
    """Responses whose number is not that of the samples that the baseline states for the metric."""
    stored = db.execute("SELECT value FROM baseline WHERE key = 'probed'").fetchone()
    readings = parse_json(stored[0])["readings"] if stored else {}
    for metric, reading in readings.items():
        if len(reading["strata"]) != len(reading["clusters"]):
            yield f"baseline, row probed, readings.{metric}: strata and clusters differ in length"
    for (metric,) in db.execute("SELECT DISTINCT metric FROM responses").fetchall():
        samples = len(readings[metric]["clusters"]) if metric in readings else -1
        query = "SELECT layer, scheme, length(sums) FROM responses WHERE metric = ? AND length(sums) <> 4 * probes * ?"
        for layer, scheme, size in db.execute(query, (metric, samples)):
            yield f"responses, row {layer} / {scheme} / {metric}: {size} bytes are not for {max(samples, 0)} samples"


def _loss_problems(db: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with the metrics and sources of losses, or differs between losses of one metric."""
    families: dict[str, str] = {}
    infinite: dict[tuple[str, str, str, int], bool] = {}
    for metric, family, source, count, is_infinite in db.execute(LOSSES):
        try:
            LOSS({"metric": metric, "family": family, "source": source, "count": count})
        except Wrong as wrong:
            yield f"measurements, {wrong}"
            continue
        if metric in RESERVED:
            yield f"measurements: a metric is named {metric}, which has another meaning in objectives"
        known = METRICS[metric].family if metric in METRICS and source != "imported" else family
        if families.setdefault(metric, known) != family:
            yield f"measurements: {metric} is of the family {shown(family)}, and elsewhere of {families[metric]}"
        if infinite.setdefault((metric, family, source, count), is_infinite) != is_infinite:
            yield (f"measurements: stderr of {metric} is infinite for some losses of {count} samples and finite for "
                   "others; it depends on the samples alone")  # fmt: skip


def _as_mapping(db: sqlite3.Connection, table: str) -> dict[str, str]:
    return dict(db.execute(f"SELECT key, value FROM {table}"))


def _check_facts(address: str, value: Any) -> None:
    FACTS(value)
    if value["address"] != address:
        raise Wrong(f"its facts are of {shown(value['address'])}", ("address",))


def _check_graph(addresses: set[str], key: str, value: Any) -> None:
    GRAPH.get(key, _unknown)(value)
    named = set().union(*value) if key in _BETWEEN_LAYERS else set()
    if foreign := named - addresses:
        raise Wrong(f"{shown(min(foreign))} is not a layer of the profile")
    if key in _DISJOINT and (twice := [name for name, count in Counter(chain(*value)).items() if count > 1]):
        raise Wrong(f"{shown(twice[0])} is listed twice; groups that have a layer in common are one group")


def _nothing(_: Any) -> None:
    """Any JSON."""


def _unknown(_: Any) -> None:
    raise Wrong(f"there is no such row; known are {', '.join(GRAPH)}")
