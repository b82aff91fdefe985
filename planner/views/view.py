"""The data of a sweep: the layers with all their options, and plans as choices among them, stored as JSON.

`bitplan sweep` writes a `View`, `bitplan report` draws it, and `bitplan explore` computes new ones. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathError, plain_name, read_text, write_text
from bitplan.planner.texts import one_line, system_reason, table
from bitplan.planner.units import COSTS, SHOW, TIMES, beside_full, time_cell
from bitplan.planner.views.view_schema import VERSION, check_sweep
from bitplan.plans.checks import Wrong
from bitplan.plans.reading import parse_json
from bitplan.sensitivity.table import FAMILIES, OWN

VIEW = "sweep.json"  # the view's file name in the folder that `bitplan sweep` writes
FULL = "full precision"  # the name of the variant that keeps every layer
ROWS = 14  # maximum number of rows of a printed frontier; a longer one is sampled evenly


@dataclass(frozen=True)
class Option:
    """One scheme that a layer may take.

    Attributes:
        scheme: its text form.
        bits: bits of a weight code; 16 or 32 for a layer in full precision.
        bytes: size of the layer's weights; a shared weight in full precision is counted in its first layer only.
        ms: milliseconds of the layer in one run.
        losses: metric -> (mean, standard error or None where it is unknown).
        real: whether a low-bit kernel runs it.
    """

    scheme: str
    bits: int
    bytes: int
    ms: float
    losses: Mapping[str, tuple[float, float | None]]
    real: bool


@dataclass(frozen=True)
class Cell:
    """One layer on the map.

    Attributes:
        layer: its address.
        role: a name of `bitplan.planner.graph.layers.ROLES`, or empty.
        block: its block, from `bitplan.planner.graph.layers.blocks_of`.
        kind: a name of `bitplan.plans.kinds.KINDS`.
        weight: the weight's shape.
        macs: multiply-adds of one run.
        calls: calls in one run, the mean over conditions.
        options: its schemes in the profile's order, `keep` first.
        share: on how many conditions its losses rest; empty if they are all.
    """

    layer: str
    role: str
    block: str
    kind: str
    weight: tuple[int, ...]
    macs: int
    calls: float
    options: tuple[Option, ...]
    share: str = ""


@dataclass(frozen=True)
class Column:
    """A quantity that adds up over layers and may have a limit.

    Attributes:
        name: `bytes`, `ms`, a family or a metric.
        unit: `bytes`, `ms`, or empty for a loss.
        family: the metric's family; empty for costs and for families.
    """

    name: str
    unit: str
    family: str


@dataclass(frozen=True)
class Variant:
    """One plan, or the fact that no plan meets a limit. File names are relative to the folder of the view.

    Attributes:
        name: unique within a view.
        status: the solver's status, `uniform` or `full precision`.
        picks: for each cell the index of its option; empty where there is no plan.
        limit: the limit on the view's column; None for uniform plans and full precision.
        objective: the plan's objective.
        bound: the lower bound of the objective.
        gap: the relative difference of the two.
        totals: column -> predicted sum.
        errors: metric -> standard error of its predicted sum, with independent layers.
        plan: the plan's file.
        measured: metric -> (mean, standard error) on held-out prompts.
        pictures: image files, one for each condition; empty where nothing was painted.
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
    """A sweep: the layers, the plans at all limits, and reference plans.

    Attributes:
        model: the model's part of the profile's header.
        by: the column whose limit varies.
        weights: column -> weight in the objective.
        budgets: column -> limit, for all other budgets.
        smallest: the smallest reachable sum of `by` within `budgets`; None where it is unknown.
        columns: costs, families and metrics.
        cells: the layers in order of first execution.
        points: the plans from the loosest limit to the tightest.
        uniform: plans with one scheme in every layer that may take it.
        full: the plan that keeps every layer.
        conditions: labels of the pictures.
        about: profile digest, request, machine and the like, as far as they are known.
        version: the version of the file format.
    """

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

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        """The frontier as a table: one row for each limit, at most `ROWS`."""
        shown = [self.points[index] for index in spread_indices(len(self.points), ROWS)]
        names = {column.name for column in self.columns if column.family == OWN} | {*COSTS, *FAMILIES}
        columns = [column.name for column in self.columns if column.name in names]
        lines = [table([_row(self, point, columns) for point in shown])]
        if len(shown) < len(self.points):
            lines.append(f"{len(shown)} of {len(self.points)} limits")
        unmet = sum(not point.picks for point in self.points)
        if unmet:
            least = "is not known" if self.smallest is None else f"is {_show(self, self.by, self.smallest)}"
            lines.append(f"{unmet} of {len(self.points)} limits have no plan; the smallest reachable {self.by} {least}")
        return "\n".join(lines)


def write_view(view: View, path: Path) -> None:
    """Writes the view as a JSON file, whole or not at all. Raises UserError where it cannot be written."""
    write_text(json.dumps(view.to_json(), separators=(",", ":")) + "\n", path, "json")


def read_view(path: Path) -> View:
    """Reads a view from a JSON file. Raises UserError where it is missing or malformed."""
    try:
        data = parse_json(read_text(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {system_reason(error)}; make it with `bitplan sweep`") from None
    except ValueError as error:
        raise UserError(f"{path} is not a sweep ({one_line(error)}); make it again with `bitplan sweep`") from None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise UserError(f"{path} is not a sweep of version {VERSION}; make it again with `bitplan sweep`")
    try:
        check_sweep(data)
        return _view(data)
    except Wrong as wrong:
        raise UserError(f"{path}, {wrong}; make it again with `bitplan sweep`") from None
    except PathError as error:
        raise UserError(f"{path}: {error}") from None


def _view(data: Mapping[str, Any]) -> View:
    fields: dict[str, Any] = dict(data)
    fields["columns"] = tuple(Column(**each) for each in data["columns"])
    fields["cells"] = tuple(_cell(each) for each in data["cells"])
    for name in ("points", "uniform"):
        fields[name] = tuple(_variant(each) for each in data[name])
    return View(**fields | {"full": _variant(data["full"]), "conditions": tuple(data["conditions"])})


def _cell(data: dict[str, Any]) -> Cell:
    options = tuple(Option(**option | {"losses": _pairs(option["losses"])}) for option in data["options"])
    return Cell(**data | {"weight": tuple(data["weight"]), "options": options})


def _variant(data: dict[str, Any]) -> Variant:
    measured = None if data["measured"] is None else _pairs(data["measured"])
    lists = {name: tuple(data[name]) for name in ("picks", "pictures")}
    plan = data.get("plan")
    for name in (data["name"], *lists["pictures"], *([] if plan is None else [plan])):
        plain_name(name)  # a variant's name becomes that of its files
    return Variant(**data | lists | {"measured": measured})


def _pairs(data: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    return {name: (mean, stderr) for name, (mean, stderr) in data.items()}


def measured_text(view: View) -> str:
    """Returns a table of predicted and measured losses: one row for each painted plan, the largest first."""
    variants = (view.full, *view.points, *view.uniform)
    painted = {one.picks: one for one in reversed(variants) if one.measured is not None}
    whole = view.full.totals["bytes"]
    rows = []
    for one in sorted(painted.values(), key=lambda one: -one.totals["bytes"]):
        size = one.totals["bytes"]
        row = {"plan": one.name, "bytes": f"{size:,.0f}", "of full": f"{size / whole:.1%}"}
        rows.append(row | _measured(one, errors=True))
    return table(rows)


def spread_indices(count: int, most: int) -> list[int]:
    """Returns at most `most` of the indices 0 to `count` - 1, evenly spread, with both ends."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)] if most > 1 else [0][:most]


def _row(view: View, point: Variant, columns: list[str]) -> dict[str, str]:
    row = {f"{view.by} at most": "" if point.limit is None else _show(view, view.by, point.limit)}
    row["status"] = point.status
    if not point.picks:
        return row
    row["objective"] = "" if point.objective is None else f"{point.objective:.6g}"
    row["gap"] = "-" if point.gap is None else f"{point.gap:.2g}"
    full = view.full.totals.get("ms")
    for name, value in ((name, point.totals[name]) for name in columns if name in point.totals):
        row |= {TIMES: time_cell(value, full)} if name == "ms" else {name: SHOW.get(name, "{:.4g}".format)(value)}
    return row | _measured(point, errors=False)


def _measured(one: Variant, errors: bool) -> dict[str, str]:
    """Each measured loss beside its prediction. errors: with the standard errors that are known."""
    row = {}
    for name, (mean, stderr) in (one.measured or {}).items():
        pairs = ((one.totals.get(name), one.errors.get(name)), (mean, stderr))
        texts = [_with_error(value, error if errors else None) for value, error in pairs]
        row[f"{name}, predicted / measured"] = " / ".join(texts) if mean or one.totals.get(name) else "0"
    return row


def _with_error(value: float | None, error: float | None) -> str:
    return "–" if value is None else f"{value:.2g}" + (f" ± {error:.1g}" if error else "")


def _show(view: View, column: str, value: float) -> str:
    """A limit; one on the time beside that of full precision."""
    if column == "ms":
        return beside_full(value, view.full.totals.get("ms"))
    return SHOW.get(column, "{:.6g}".format)(value)
