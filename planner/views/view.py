"""What there is to see: the layers with all their choices, and plans as choices among them. Plain data, kept as JSON.

A `View` is what `bitplan sweep` writes, what `bitplan report` draws, and what `bitplan explore` solves anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.files import write_text

VERSION = 1
VIEW = "sweep.json"  # the file of a view, in the folder that `bitplan sweep` writes
FULL = "full precision"  # the name of the variant that keeps every layer


@dataclass(frozen=True)
class Option:
    """One scheme of one layer. bits: of its weights' codes, 16 or 32 where it is kept; bytes, ms: its costs; losses:
    metric -> (mean, standard error or None where it is not known); real: whether a kernel runs it."""

    scheme: str
    bits: int
    bytes: int
    ms: float
    losses: Mapping[str, tuple[float, float | None]]
    real: bool


@dataclass(frozen=True)
class Cell:
    """One layer on the map. role: of `bitplan.planner.graph.layers.ROLES`, or empty; block: of
    `bitplan.planner.graph.layers.blocks_of`; kind: of
    `bitplan.plans.kinds`; weight: its shape; macs, calls: of one run; options: in the profile's order, `keep` the
    first."""

    layer: str
    role: str
    block: str
    kind: str
    weight: tuple[int, ...]
    macs: int
    calls: int
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Column:
    """A number that adds up over layers, and may have a limit. unit: `bytes`, `ms`, or empty for a loss; family: of
    its metric, empty for costs and for the families themselves."""

    name: str
    unit: str
    family: str


@dataclass(frozen=True)
class Variant:
    """One plan, or no plan within its limit.

    name: unique among a view's; limit: on the view's column, None for uniform plans and full precision; status: of
    the solver, or `uniform`, `full precision`; picks: one index a cell, among its options, empty where there is no
    plan; totals: column -> predicted sum; errors: metric -> standard error of its predicted sum, the layers' taken as
    independent; plan: its file; measured: metric -> (mean, standard error); pictures: one a condition, or empty where
    none were painted. Files are paths below the folder that holds the view.
    """

    name: str
    status: str
    picks: tuple[int, ...] = ()
    limit: float | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    totals: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    plan: str | None = None
    measured: Mapping[str, tuple[float, float | None]] | None = None
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """All of it. by: the column whose limit varies; weights: of the objective; budgets: the other ones; smallest: what
    the column can get to within them, None where it is not known; cells: in order of first execution; points: from the
    loosest limit to the tightest; uniform: one scheme everywhere; full: every layer kept; conditions: labels of the
    pictures; about: pipeline, seed, machine, versions, as far as known."""

    model: Mapping[str, Any]
    by: str
    weights: Mapping[str, float]
    budgets: Mapping[str, float]
    smallest: float | None
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    points: tuple[Variant, ...]
    uniform: tuple[Variant, ...]
    full: Variant
    conditions: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION


def to_json(view: View) -> dict[str, Any]:
    """What `json.dumps` takes."""
    return asdict(view)


def write_view(view: View, path: Path) -> None:
    """The view as a JSON file, in one move. Raises UserError where it cannot be written."""
    write_text(json.dumps(to_json(view), separators=(",", ":")) + "\n", path)


def read_view(path: Path) -> View:
    """The view in a JSON file, equal to what was written. Raises UserError in one line."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it with `bitplan sweep`") from None
    except ValueError as error:
        raise UserError(f"{path} is no sweep ({error}); make it again with `bitplan sweep`") from None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise UserError(f"{path} is no sweep of version {VERSION}; make it again with `bitplan sweep`")
    try:
        return _view(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no sweep ({type(error).__name__}: {error}); make it again") from None


def _view(data: Mapping[str, Any]) -> View:
    known: dict[str, Any] = dict(data)
    known["columns"] = tuple(Column(**each) for each in data["columns"])
    known["cells"] = tuple(_cell(each) for each in data["cells"])
    for name in ("points", "uniform"):
        known[name] = tuple(_variant(each) for each in data[name])
    return View(**known | {"full": _variant(data["full"]), "conditions": tuple(data["conditions"])})


def _cell(data: dict[str, Any]) -> Cell:
    options = tuple(Option(**option | {"losses": _pairs(option["losses"])}) for option in data["options"])
    return Cell(**data | {"weight": tuple(data["weight"]), "options": options})


def _variant(data: dict[str, Any]) -> Variant:
    measured = None if data["measured"] is None else _pairs(data["measured"])
    lists = {name: tuple(data[name]) for name in ("picks", "pictures")}
    return Variant(**data | lists | {"measured": measured})


def _pairs(data: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    return {name: (mean, stderr) for name, (mean, stderr) in data.items()}
