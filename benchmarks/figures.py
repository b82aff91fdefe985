"""Every figure of benchmarks/results as tables, so that none is typed by hand: `python -m benchmarks.figures`.

Writes docs/figures.md: a section a result file, with what made it and where. `benchmarks/figure_tables.py` chooses.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.figure_tables import SOURCES, TABLES, Table
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/figures.md"
MACHINE = ("machine", "processor", "cpus", "threads", "python", "torch", "diffusers", "transformers", "pulp", "highspy",
           "numpy", "ortools", "pyscipopt", "seed")  # fmt: skip
NONE = "–"
HEAD = """# Figures

Everything that was measured, as the files in `benchmarks/results` hold it; `python -m benchmarks.figures` writes this
page from them. Each was made by the command that it names, on the machine that it names; times are of that machine.
Ratios are more portable than times, and losses more than both.
"""


def page() -> str:
    """The whole page."""
    first = [name for name in TABLES if (RESULTS / f"{name}.json").exists()]
    rest = sorted(path.stem for path in RESULTS.glob("*.json") if path.stem not in TABLES)
    return "\n".join([HEAD, *(section(name, json.loads((RESULTS / f"{name}.json").read_text())) for name in
                              [*first, *rest])])  # fmt: skip


def section(name: str, data: Any) -> str:
    """Its claim, command, machine and tables."""
    says, command = told(ROOT / SOURCES.get(name, f"benchmarks/{name}.py"))
    on = ", ".join(f"{key} {value}" for key, value in machine(data).items())
    made = f"`benchmarks/results/{name}.json`, made by `{command}`" + (f" on: {on}." if on else ".")
    chosen = TABLES.get(name) or tuple(whole(data))
    tables = [text for table in chosen if (text := drawn(table, data))]
    return "\n".join([f"## {_plainly(name).capitalize()}\n", says, "", made, "", *tables])


def told(source: Path) -> tuple[str, str]:
    """The first sentence of a script's docstring, and the command that runs it."""
    text = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
    found = re.search(r"python (?:-m )?(?:benchmarks|examples)[./][^`\n]*|make \w+", text)
    says = re.sub(r"\s+", " ", text.split("\n\n")[0])
    says = re.split(r": `python|(?<=[.?!]) (?=[A-Z`])", says)[0].removeprefix("Claim: ")
    says = says[0].upper() + says[1:]
    command = found[0] if found else f"python -m benchmarks.{source.stem}"
    return says if says[-1] in ".?!" else f"{says}.", command.rstrip(" .")


def machine(data: Any) -> dict[str, str]:
    """What it ran on: the values of MACHINE's keys, wherever they stand."""
    found: dict[str, dict[str, None]] = {}
    for key, value in _pairs(data):
        if key in MACHINE and not isinstance(value, dict | list):
            found.setdefault(key, {})[str(value)] = None
    return {key: " and ".join(found[key]) for key in MACHINE if key in found}


def drawn(table: Table, data: Any) -> str:
    """The table in Markdown with its caption, or nothing where no row has a value."""
    rows = []
    for keys, place in _places(data, table.at.split("/") if table.at else []):
        cells = {header: _cell(path, keys, place) for header, path in table.columns.items()}
        if any(cells[header] != NONE for header, path in table.columns.items() if path[0] != "@"):
            rows.append(cells)
    if not rows:
        return ""
    seen = [header for header in rows[0] if any(row[header] != NONE for row in rows)]
    body = tabulate([[row[header] for header in seen] for row in rows], seen, "github", disable_numparse=True)
    return "\n".join([*([table.caption, ""] if table.caption else []), body, ""])


def whole(data: Mapping[str, Any], at: str = "") -> Iterator[Table]:
    """Tables of everything that a file holds, where nobody has chosen: of numbers, of lists, then what is below."""
    plain = {_plainly(k): k for k, value in data.items() if not isinstance(value, dict | list) and k not in MACHINE}
    if plain:
        yield Table(_plainly(at), at, plain)
    for key, value in data.items():
        place = f"{at}/{key}" if at else key
        if isinstance(value, dict) and key != "about":
            yield from whole(value, place)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            paths = {_plainly(path): path for row in value for path in _leaves(row)}
            yield Table("" if key == "rows" else _plainly(place), f"{place}/*", paths)


def shown(value: Any) -> str:
    """Three digits of a fraction, all of a whole number."""
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
    return f"{100 * value:.3g} %" if percent and isinstance(value, int | float) else shown(value)


def _places(data: Any, path: list[str], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What lies at the path, with the keys that its stars stand for."""
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
