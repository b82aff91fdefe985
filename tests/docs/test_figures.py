"""docs/figures.md and docs/measured.md contain the figures of the result files, and none that was typed by hand."""

from __future__ import annotations

import json
import re

from benchmarks import measured
from benchmarks.figure_tables import QUESTIONS, TABLES, Table
from benchmarks.figures import (
    PAGE,
    RESULTS,
    _anchor,
    _title,
    all_tables,
    claim_and_command,
    machine,
    page,
    questions,
    section,
    table_text,
)


def test_the_page_is_what_the_script_writes() -> None:
    assert page() == PAGE.read_text("utf-8"), "python -m benchmarks.figures"
    for path in RESULTS.glob("*.json"):
        assert f"`benchmarks/results/{path.name}`" in page()
    assert set(TABLES) <= {path.stem for path in RESULTS.glob("*.json")}


def test_the_page_of_main_results_is_what_its_script_writes() -> None:
    assert measured.page() == measured.PAGE.read_text("utf-8"), "python -m benchmarks.measured"


def test_each_result_answers_one_question() -> None:
    names = [name for names in QUESTIONS.values() for name in names]
    assert len(names) == len(set(names)) and set(names) == set(TABLES)
    for name in (name for names in questions().values() for name in names):
        title, text = re.escape(_title(name)), page()
        assert len(re.findall(rf"\[{title}\]\(#{_anchor(name)}\)", text)) == 1
        assert len(re.findall(rf"^### {title}$", text, re.M)) == 1


def test_the_figures_of_the_page_on_serving_are_measured() -> None:
    text = (PAGE.parent / "serving.md").read_text("utf-8")
    figures = re.findall(r"\d[\d,.]*(?= (?:MiB|times|M parameters))", text)
    assert len(figures) > 6 and all(figure in measured.page() for figure in figures)


def test_every_table_that_is_chosen_has_rows() -> None:
    for name, tables in TABLES.items():
        data = json.loads((RESULTS / f"{name}.json").read_text())
        for table in tables:
            text = table_text(table, data)
            assert text and re.fullmatch(r"[A-Z`].+\.", table.caption), (name, table.caption)
            for header in table.columns:
                assert f"| {header} " in text, (name, header)  # a path that matches nothing leaves its column out


def test_places_keys_and_percents() -> None:
    data = {"a": {"x": {"n": 1234, "share": 0.5}, "y": {"n": None, "share": 0.25}}, "threads": 1, "b": {"threads": 2}}
    text = table_text(
        Table("Caption.", "a/*", {"name": "@0", "n": "n", "share": "share %", "none": "nothing/here"}), data
    )
    rows = [line.replace(" ", "") for line in text.splitlines()]
    assert rows[0] == "Caption." and rows[2] == "|name|n|share|" and rows[4:6] == ["|x|1,234|50%|", "|y|–|25%|"]
    assert machine(data) == {"threads": "1 and 2"}
    assert not table_text(Table("", "a/*", {"name": "@0", "none": "nothing"}), data)


def test_a_file_without_tables_is_shown_as_a_whole() -> None:
    data = {"seconds": 1.5, "machine": "m", "deep": {"count": 3}, "rows": [{"name": "r", "in": {"ms": 2.25}}]}
    text = "".join(table_text(table, data) for table in all_tables(data))
    assert all(word in text for word in ("seconds", "1.5", "deep", "count", "in, ms", "2.25")) and "machine" not in text


def test_claims_and_commands_come_from_the_scripts() -> None:
    claim, command = claim_and_command(RESULTS.parent / "solver.py")
    assert claim == "Measures the speed of the exact path." and command.startswith("python -m benchmarks.solver")
    assert "made by `make demo`" in section("demo", json.loads((RESULTS / "demo.json").read_text()))
