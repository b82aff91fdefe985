"""Writes docs/figures.md from the result files in benchmarks/results: `python -m benchmarks.figures`.

The page has a section for each result file, with the command and the machine that produced it. No figure is typed by
hand. `benchmarks/figure_tables.py` selects the figures of each section.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.figure_tables import QUESTIONS, SOURCES, TABLES, Table
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/figures.md"
MACHINE = ("machine", "processor", "cpus", "threads", "python", "torch", "diffusers", "transformers", "pulp", "highspy",
           "numpy", "ortools", "pyscipopt", "seed")  # fmt: skip
NONE = "–"
SPELLINGS = {"cpu": "CPU", "mmkp": "MMKP", "mixdq": "MixDQ", "ray": "Ray"}
HEAD = """# Figures

This page shows the results of all benchmarks, by the question that they answer; [`docs/measured.md`](measured.md) shows
the main ones. `python -m benchmarks.figures` writes it from the files in [`benchmarks/results`](../benchmarks/results).
Each section names the command and the machine that produced its figures, and times are valid for that machine only.
Ratios of times carry over to other machines better than times do, and losses better than ratios.
"""


def page() -> str:
    """Return the text of the page."""
    groups = questions()
    contents = [f"- {question} {', '.join(f'[{_title(name)}](#{_anchor(name)})' for name in names)}"
                for question, names in groups.items()]  # fmt: skip
    parts = [HEAD, "\n".join(contents), ""]
    for question, names in groups.items():
        parts.append(f"## {question}\n")
        parts += [section(name, json.loads((RESULTS / f"{name}.json").read_text())) for name in names]
    return "\n".join(parts)


def questions() -> dict[str, list[str]]:
    """Return the questions with the result files that answer them; those without a question are at the end."""
    there = {path.stem for path in RESULTS.glob("*.json")}
    known = {name for names in QUESTIONS.values() for name in names}
    groups = {question: [name for name in names if name in there] for question, names in QUESTIONS.items()}
    groups["What else was measured?"] = sorted(there - known)
    return {question: names for question, names in groups.items() if names}


def section(name: str, data: Any) -> str:
    """Return the section of one result file: claim, command, machine and tables."""
    claim, command = claim_and_command(ROOT / SOURCES.get(name, f"benchmarks/{name}.py"))
    on = ", ".join(f"{key} {value}" for key, value in machine(data).items())
    source = f"[`benchmarks/results/{name}.json`](../benchmarks/results/{name}.json), made by `{command}`" + (
        f" on: {on}." if on else "."
    )
    selected = TABLES.get(name) or tuple(all_tables(data))
    tables = [text for table in selected if (text := table_text(table, data))]
    return "\n".join([f"### {_title(name)}\n", claim, "", source, "", *tables])


def claim_and_command(script: Path) -> tuple[str, str]:
    """Return the first sentence of a script's docstring, and the command that runs the script."""
    text = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
    command = re.search(r"python (?:-m )?(?:benchmarks|examples)[./][^`\n]*|make \w+", text)
    claim = re.sub(r"\s+", " ", text.split("\n\n")[0])
    claim = re.split(r": `python|(?<=[.?!]) (?=[A-Z`])", claim)[0].removeprefix("Claim: ")
    claim = re.sub(r"`(examples/[\w/.]+)`", r"[`\1`](../\1)", claim[0].upper() + claim[1:])
    words = command[0] if command else f"python -m benchmarks.{script.stem}"
    return claim if claim[-1] in ".?!" else f"{claim}.", words.rstrip(" .")


def machine(data: Any) -> dict[str, str]:
    """Return the values of the keys in MACHINE, at any depth of the data."""
    values: dict[str, dict[str, None]] = {}
    for key, value in _pairs(data):
        if key in MACHINE and not isinstance(value, dict | list):
            values.setdefault(key, {})[str(value)] = None
    return {key: " and ".join(values[key]) for key in MACHINE if key in values}


def table_text(table: Table, data: Any) -> str:
    """Return the table in Markdown with its caption, or an empty text if no row has a value."""
    rows = []
    for keys, place in _places(data, table.at.split("/") if table.at else []):
        cells = {header: _cell(path, keys, place) for header, path in table.columns.items()}
        if any(cells[header] != NONE for header, path in table.columns.items() if path[0] != "@"):
            rows.append(cells)
    if not rows:
        return ""
    headers = [header for header in rows[0] if any(row[header] != NONE for row in rows)]
    body = tabulate([[row[header] for header in headers] for row in rows], headers, "github", disable_numparse=True)
    return "\n".join([*([table.caption, ""] if table.caption else []), body, ""])


def all_tables(data: Mapping[str, Any], at: str = "") -> Iterator[Table]:
    """Yield tables of all values of a file without a line in TABLES: its numbers, then its lists and nested values."""
    plain = {_plainly(k): k for k, value in data.items() if not isinstance(value, dict | list) and k not in MACHINE}
    if plain:
        yield Table(_plainly(at), at, plain)
    for key, value in data.items():
        place = f"{at}/{key}" if at else key
        if isinstance(value, dict) and key != "about":
            yield from all_tables(value, place)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            paths = {_plainly(path): path for row in value for path in _leaves(row)}
            yield Table("" if key == "rows" else _plainly(place), f"{place}/*", paths)


def value_text(value: Any) -> str:
    """Return a value as text: fractions with three digits, whole numbers with all digits."""
    if value is None or isinstance(value, dict | list):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def _cell(path: str, keys: tuple[str, ...], place: Any) -> str:
    if path[0] == "@":
        return keys[int(path[1:])]
    path, percent, _ = path.partition(" %")
    value = next((value for _, value in _places(place, [] if path == "." else path.split("/"))), None)
    return f"{100 * value:.3g} %" if percent and isinstance(value, int | float) else value_text(value)


def _places(data: Any, path: list[str], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value at the path, with the keys that the stars of the path match."""
    if not path:
        yield keys, data
        return
    step, *rest = path
    children = {str(i): value for i, value in enumerate(data)} if isinstance(data, list) else data
    for key in (children if step == "*" else [step]) if isinstance(children, dict) else []:
        if key in children and key != "about":
            yield from _places(children[key], rest, (*keys, key) if step == "*" else keys)


def _pairs(data: Any) -> Iterator[tuple[str, Any]]:
    for key, value in data.items() if isinstance(data, dict) else []:
        yield key, value
        yield from _pairs(value)


def _anchor(name: str) -> str:
    return _title(name).lower().replace(" ", "-")


def _title(name: str) -> str:
    first, *rest = (SPELLINGS.get(word, word) for word in name.split("_"))
    return " ".join([first[0].upper() + first[1:], *rest])


def _plainly(name: str) -> str:
    return name.replace("_", " ").replace("/", ", ")


def _leaves(row: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{at}{key}/")
        elif not isinstance(value, list):
            yield f"{at}{key}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
