"""A view as a table for the terminal. Imports no torch."""

from __future__ import annotations

from bitplan.planner.texts import table
from bitplan.planner.units import COSTS, SHOW
from bitplan.planner.views.view import Variant, View
from bitplan.sensitivity.table import FAMILIES, OWN

ROWS = 14  # at most: a longer frontier is told at so many places, evenly spread


def frontier_text(view: View) -> str:
    """One line a limit, or a limit now and then where there are many."""
    shown = [view.points[place] for place in places(len(view.points), ROWS)]
    names = {column.name for column in view.columns if column.family == OWN} | {*COSTS, *FAMILIES}
    columns = [column.name for column in view.columns if column.name in names]
    rows = [_row(view, point, columns) for point in shown]
    lines = [table(rows)]
    if len(shown) < len(view.points):
        lines.append(f"{len(shown)} of {len(view.points)} limits")
    missed = sum(not point.picks for point in view.points)
    if missed:
        least = "is not known" if view.smallest is None else f"is {_show(view.by, view.smallest)}"
        lines.append(f"{missed} of {len(view.points)} limits have no plan; the smallest reachable {view.by} {least}")
    return "\n".join(lines)


def measured_text(view: View) -> str:
    """Predicted beside measured for all that was painted: one line a plan, the largest first."""
    every = (view.full, *view.points, *view.uniform)
    painted = {one.picks: one for one in reversed(every) if one.measured is not None}
    whole = view.full.totals["bytes"]
    rows = []
    for one in sorted(painted.values(), key=lambda one: -one.totals["bytes"]):
        size = one.totals["bytes"]
        row = {"plan": one.name, "bytes": f"{size:,.0f}", "of full": f"{size / whole:.1%}"}
        rows.append(row | _measured(one, errors=True))
    return table(rows)


def places(count: int, most: int) -> list[int]:
    """At most so many of `count` places, evenly spread, both ends among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)] if most > 1 else [0][:most]


def _row(view: View, point: Variant, columns: list[str]) -> dict[str, str]:
    row = {f"{view.by} at most": "" if point.limit is None else _show(view.by, point.limit), "status": point.status}
    if not point.picks:
        return row
    row["objective"] = "" if point.objective is None else f"{point.objective:.6g}"
    row["gap"] = "-" if point.gap is None else f"{point.gap:.2g}"
    row |= {name: _show(name, point.totals[name], "{:.4g}") for name in columns if name in point.totals}
    return row | _measured(point, errors=False)


def _measured(one: Variant, errors: bool) -> dict[str, str]:
    """Each measured loss beside its prediction. errors: with their standard errors, as far as known."""
    row = {}
    for name, (mean, stderr) in (one.measured or {}).items():
        sides = ((one.totals.get(name), one.errors.get(name)), (mean, stderr))
        told = [_spread(value, error if errors else None) for value, error in sides]
        row[f"{name}, predicted / measured"] = " / ".join(told) if mean or one.totals.get(name) else "0"
    return row


def _spread(value: float | None, error: float | None) -> str:
    return "–" if value is None else f"{value:.2g}" + (f" ± {error:.1g}" if error else "")


def _show(column: str, value: float, otherwise: str = "{:.6g}") -> str:
    return SHOW.get(column, otherwise.format)(value)
