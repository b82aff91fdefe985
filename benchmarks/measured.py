"""Writes docs/measured.md from the template benchmarks/measured.md.j2: `python -m benchmarks.measured`.

The page shows the main figures of each benchmark; docs/figures.md shows all of them. No figure is typed by hand: each
is an expression of the template on a file of benchmarks/results.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

from bitplan.planner.evaluation.report import summary

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
TEMPLATE = ROOT / "benchmarks/measured.md.j2"
PAGE = ROOT / "docs/measured.md"


def page() -> str:
    """Return the text of the page."""
    results = {path.stem: json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")}
    known = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    known.filters |= {"f": format, "median": median, "and": joined}
    known.globals |= {"demo_table": summary(results["demo"]), "zoo": zoo(), "ratios": ratios, "solver_row": solver_row}
    text = known.from_string(TEMPLATE.read_text("utf-8")).render(results)
    blocks = [block.strip("\n") for block in re.split(r"\n{2,}", re.sub(r" +$", "", text, flags=re.M))]
    return "\n\n".join(block if block[0] in "#|" else fill(block) for block in blocks) + "\n"


def fill(block: str) -> str:
    """Return a paragraph in lines of at most 120 characters."""
    return textwrap.fill(block, 120, break_long_words=False, break_on_hyphens=False)


def joined(values: list[str]) -> str:
    """Return the values as a list in a sentence."""
    return ", ".join(values[:-1]) + f" and {values[-1]}" if len(values) > 1 else values[0]


def zoo() -> int:
    """Return the number of pipeline classes in the table of docs/pipelines.md."""
    return len(re.findall(r"^\| `\w+` +\|", (ROOT / "docs/pipelines.md").read_text("utf-8"), re.M))


def ratios(plans: dict[str, Any]) -> str:
    """Return the least and the largest ratio of a loss of old plans to that of the model's own plans, as text."""
    found = [plan["old"][loss][0] / plan["own"][loss][0] for plan in plans.values()
             for loss in ("nsr", "dssim", "embed_drift")]  # fmt: skip
    return f"{min(found):.3g} to {max(found):.3g} times"


def solver_row(budgets: int, solver: dict[str, Any]) -> str:
    """Return the row of the solver's table for so many budgets: medians over the seeds, ratios paired."""
    rows = [row for row in solver["instances"] if row["budgets"] == budgets]
    speedup = solver["median ratio to naive"][f"{budgets} budgets"]

    def seconds(way: str) -> float:
        return median(row[way]["seconds"] for row in rows if way in row)

    return (
        f"| {budgets} | {seconds('naive PuLP+CBC'):.1f} s "
        f"| {1000 * seconds('gap 1e-3'):.0f} ms (1/{speedup['gap 1e-3']:.3g}) "
        f"| {seconds('proven'):.2f} s (1/{speedup['proven']:.3g}) "
        f"| {seconds('SCIP, gap 1e-3'):.1f} s | {seconds('CP-SAT, gap 1e-3'):.1f} s |"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
