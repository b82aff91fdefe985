"""Edits of a sweep's file: each is refused in one line that names its place."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathError
from bitplan.planner.views.view import measured_text, read_view
from tests.planner.support.views import run_in, view_of


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = run_in(tmp_path_factory.mktemp("sweep") / "run", view_of())
    return dict(json.loads((folder / "sweep.json").read_text("utf-8")))


def edited(data: Any, place: str, value: Any) -> Any:
    """A copy with the value at the place, a path of keys."""
    copy = json.loads(json.dumps(data))
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner = copy
    for key in path:
        inner = inner[key]
    inner[last] = value
    return copy


def refuse(text: str, folder: Path) -> str:
    (folder / "sweep.json").write_text(text, "utf-8")
    with pytest.raises(UserError) as caught:
        read_view(folder / "sweep.json")
    line = str(caught.value)
    assert line.isprintable() and len(line) < 400 + len(str(folder))
    return line


EDITS: list[tuple[str, Any, str]] = [
    ("points.0.picks.0", 99, "points.0.picks.0: 99 is not one of 4 options"),
    ("points.0.picks.2", -1, "points.0.picks.2: -1 is not from 0"),
    ("points.0.picks.2", 1.5, "points.0.picks.2: 1.5 is not an integer"),
    ("points.0.picks", [0], "points.0.picks: it has 1 entries for 9 layers"),
    ("full.picks.8", 4, "full.picks.8: 4 is not one of 4 options"),
    ("points.0.totals", {}, "points.0.totals: 'bytes' is missing"),
    ("points.0.totals.bytes", 1, "points.0.totals.bytes: 1 is not the sum of the picked options, "),
    ("full.totals.ms", 1e6, "full.totals.ms: 1000000.0 is not the sum of the picked options, "),
    ("points.1.totals.nsr", 0.5, "points.1.totals.nsr: 0.5 is not the sum of the picked options, "),
    ("points.0.totals.bytes", float("nan"), "NaN is not a finite number"),
    ("points.0.totals.bytes", 10**400, "points.0.totals.bytes: 1000"),
    ("points.0.errors.nsr", -1, "points.0.errors.nsr: -1 is not finite and at least 0"),
    ("points.1.measured.nsr", [1], "points.1.measured.nsr: it has 1 entries, and 2 to 2 are allowed"),
    ("points.1.measured.nsr", [None, 1], "points.1.measured.nsr: None is not a number"),
    ("cells.0.options.0.bytes", 1.5, "cells.0.options.0.bytes: 1.5 is not an integer"),
    ("cells.0.options.0.losses", [], "cells.0.options.0.losses: [] is not a mapping"),
    ("cells.0.options", [], "cells.0.options: it has 0 entries"),
    ("cells.0.role", "king", "cells.0.role: 'king' is not one of"),
    ("cells.0.layer", "unet.conv_out", "cells: a layer is listed twice"),
    ("points.0.status", "\x1b[2J", "points.0.status: '\\x1b[2J' holds control characters"),
    ("cells.0.name", "x", "cells.0: unknown key 'name'"),
    ("columns.0.unit", "miles", "columns.0.unit: 'miles' is not one of"),
    ("model", "toy", "model: 'toy' is not a mapping"),
    ("model.components", True, "model.components: True is not a list"),
    ("model.components", [5], "model.components.0: 5 is not text"),
    ("about.asked", [1], "about.asked: [1] is not a mapping"),
    ("about.painting", "x", "about.painting: 'x' is not a mapping"),
    ("weights.quality", "much", "weights.quality: 'much' is not a number"),
    ("conditions.0", "\ud800", "conditions.0: '\\ud800' is not Unicode text"),
    ("conditions.0", "x" * 70_000, "conditions.0: 'xxx"),
    ("version", 2, "not a sweep of version 1"),
]


@pytest.mark.parametrize(("place", "value", "words"), EDITS, ids=[place for place, _, _ in EDITS])
def test_an_edit_is_refused_where_it_is(place: str, value: Any, words: str, sweep: Any, tmp_path: Path) -> None:
    assert words in refuse(json.dumps(edited(sweep, place, value)), tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "7", "[" * 100_000, '{"version": 1}', '{"version": 1e999}'])
def test_what_is_no_sweep_at_all(text: str, tmp_path: Path) -> None:
    refuse(text, tmp_path)


def places(data: Any, path: tuple[str, ...] = ()) -> list[str]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    inner = [each for key, value in items for each in places(value, (*path, str(key)))]
    return inner + ([".".join(path)] if path else [])


def test_random_edits_are_refused_or_can_be_shown(sweep: Any, tmp_path: Path) -> None:
    dice, every, accepted = random.Random(3), places(sweep), 0
    for _ in range(300):
        value = dice.choice([None, -1, 0, 1.5, 1e308, 10**30, "", "x", [], {}, True, [0], "\ud800"])
        path = tmp_path / "sweep.json"
        path.write_text(json.dumps(edited(sweep, dice.choice(every), value)), "utf-8")
        try:
            view = read_view(path)
        except (UserError, PathError) as error:
            assert str(error).isprintable()
            continue
        accepted += 1
        assert str(view) and measured_text(view)
    assert accepted > 10


def test_what_a_variant_may_lack_is_not_missed(sweep: dict[str, Any], tmp_path: Path) -> None:
    data = json.loads(json.dumps(sweep))
    for name in ("limit", "objective", "bound", "gap", "errors", "plan"):
        data["points"][0].pop(name, None)
    (tmp_path / "sweep.json").write_text(json.dumps(data), "utf-8")
    view = read_view(tmp_path / "sweep.json")
    assert view.points[0].plan is None and view.points[0].picks == tuple(data["points"][0]["picks"]) and str(view)
