"""What a `sweep.json` may hold, checked when it is read. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bitplan.planner.graph.layers import ROLES, UNKNOWN
from bitplan.planner.profiles.rules import ROUNDING
from bitplan.planner.units import COSTS
from bitplan.plans.checks import (
    Wrong,
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
from bitplan.plans.kinds import KINDS
from bitplan.sensitivity.table import FAMILIES, OWN

VERSION = 1
_NUMBERS, _SIZES, _AMOUNT = mapping_of(number()), mapping_of(number(0)), optional(number())


def _pair(value: Any) -> None:
    """A mean, and its standard error or null."""
    list_of(_AMOUNT, 2, 2)(value)
    number()(value[0])
    optional(number(0))(value[1])


_OPTION = record(
    {"scheme": name(200), "bits": whole(1, 64), "bytes": whole(), "ms": number(0), "losses": mapping_of(_pair),
     "real": flag},
)  # fmt: skip
_CELL = record(
    {
        "layer": text(1000, 1), "role": one_of((UNKNOWN, *ROLES)), "block": text(1000), "kind": one_of(KINDS),
        "weight": list_of(whole(1), 1, 8), "macs": whole(0, 2**63), "calls": number(0), "options": list_of(_OPTION, 1),
    },
    {"share": text(100)},
)  # fmt: skip
_VARIANT = record(
    {"name": name(), "status": name(100), "picks": list_of(whole()), "measured": optional(mapping_of(_pair)),
     "pictures": list_of(text(1000))},
    {"limit": _AMOUNT, "objective": _AMOUNT, "bound": _AMOUNT, "gap": _AMOUNT, "totals": _NUMBERS, "errors": _SIZES,
     "plan": optional(text(1000))},
)  # fmt: skip
_COLUMN = record({"name": name(), "unit": one_of(("", "bytes", "ms")), "family": one_of(("", *FAMILIES, OWN))})
_PLAIN = mapping_of(plain())
_MODEL = record({}, {"components": list_of(text(1000))}, plain())
_ABOUT = record({}, {"asked": _PLAIN, "painting": _PLAIN}, plain())
SWEEP = record(
    {
        "model": _MODEL, "by": name(), "weights": _NUMBERS, "budgets": _NUMBERS, "smallest": _AMOUNT,
        "columns": list_of(_COLUMN), "cells": list_of(_CELL, 1), "points": list_of(_VARIANT),
        "uniform": list_of(_VARIANT), "full": _VARIANT, "conditions": list_of(text()), "version": one_of((VERSION,)),
    },
    {"about": _ABOUT},
)  # fmt: skip


def check_sweep(data: Any) -> None:
    """Raises Wrong where the data is not a sweep, or its plans do not fit its layers."""
    SWEEP(data)
    layers = [cell["layer"] for cell in data["cells"]]
    if len(set(layers)) < len(layers):
        raise Wrong("a layer is listed twice", ("cells",))
    for key in ("points", "uniform"):
        for place, variant in enumerate(data[key]):
            _check_variant(variant, data["cells"], (key, place))
    _check_variant(data["full"], data["cells"], ("full",))


def _check_variant(variant: Mapping[str, Any], cells: list[Any], place: tuple[object, ...]) -> None:
    picks = variant["picks"]
    if not picks:
        return
    if len(picks) != len(cells):
        raise Wrong(f"it has {len(picks)} entries for {len(cells)} layers", (*place, "picks"))
    for layer, (pick, cell) in enumerate(zip(picks, cells, strict=True)):
        if pick >= (count := len(cell["options"])):
            raise Wrong(f"{shown(pick)} is not one of {count} options", (*place, "picks", layer))
    totals = variant.get("totals", {})
    if "bytes" not in totals:
        raise Wrong("'bytes' is missing", (*place, "totals"))
    picked = [cell["options"][pick] for pick, cell in zip(picks, cells, strict=True)]
    for column, total in totals.items():
        amounts = _amounts(picked, column)
        if amounts and not math.isclose(total, sum(amounts), rel_tol=ROUNDING):
            raise Wrong(f"{shown(total)} is not the sum of the picked options, {sum(amounts):.10g}",
                        (*place, "totals", column))  # fmt: skip


def _amounts(options: list[Mapping[str, Any]], column: str) -> list[float]:
    """The amounts of a cost or a metric, no loss below 0; none of a family, whose scale only the profile states."""
    if column in COSTS:
        return [option[column] for option in options]
    return [max(option["losses"][column][0], 0.0) for option in options if column in option["losses"]]
