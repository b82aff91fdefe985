"""docs/figures.md holds what the result files hold, and nothing that was typed."""

from __future__ import annotations

import json

from benchmarks.figure_tables import TABLES, Table
from benchmarks.figures import PAGE, RESULTS, drawn, machine, page, section, told, whole


def test_the_page_is_what_the_script_writes() -> None:
    assert page() == PAGE.read_text("utf-8"), "python -m benchmarks.figures"
    for path in RESULTS.glob("*.json"):
        assert f"`benchmarks/results/{path.name}`" in page()
    assert set(TABLES) <= {path.stem for path in RESULTS.glob("*.json")}


def test_every_table_that_is_chosen_has_rows() -> None:
    for name, tables in TABLES.items():
        data = json.loads((RESULTS / f"{name}.json").read_text())
        for table in tables:
            text = drawn(table, data)
            assert text, (name, table.caption)
            for header in table.columns:
                assert f"| {header} " in text, (name, header)  # a path that leads nowhere leaves its column out


def test_places_keys_and_percents() -> None:
    data = {"a": {"x": {"n": 1234, "share": 0.5}, "y": {"n": None, "share": 0.25}}, "threads": 1, "b": {"threads": 2}}
    text = drawn(Table("Told.", "a/*", {"name": "@0", "n": "n", "share": "share %", "none": "nothing/here"}), data)
    rows = [line.replace(" ", "") for line in text.splitlines()]
    assert rows[0] == "Told." and rows[2] == "|name|n|share|" and rows[4:6] == ["|x|1,234|50%|", "|y|–|25%|"]
    assert machine(data) == {"threads": "1 and 2"}
    assert not drawn(Table("", "a/*", {"name": "@0", "none": "nothing"}), data)


def test_a_file_that_nobody_chose_for_is_shown_as_a_whole() -> None:
    data = {"seconds": 1.5, "machine": "m", "deep": {"count": 3}, "rows": [{"name": "r", "in": {"ms": 2.25}}]}
    text = "".join(drawn(table, data) for table in whole(data))
    assert all(word in text for word in ("seconds", "1.5", "deep", "count", "in, ms", "2.25")) and "machine" not in text


def test_claims_and_commands_come_from_the_scripts() -> None:
    says, command = told(RESULTS.parent / "solver.py")
    assert says == "How fast the exact path is." and command.startswith("python -m benchmarks.solver")
    assert "made by `make demo`" in section("demo", json.loads((RESULTS / "demo.json").read_text()))
