"""Writes the table of docs/metrics.md from `METRICS`: `python -m tests.docs.metrics`."""

from __future__ import annotations

import re

from tabulate import tabulate

from bitplan.sensitivity.metrics import METRICS, OUTPUTS, Metric
from tests.docs.executed import ROOT

PAGE = ROOT / "docs" / "metrics.md"
HEADERS = ("metric", "family", "reads", "for", "by default for", "its number", "remarks")


def metrics_table() -> str:
    rows = [
        (f"`{m.name}`", m.family, m.reads, _kinds(m.outputs), _kinds(m.default) or "-", m.says, _remarks(m) or "-")
        for m in METRICS.values()
    ]
    return str(tabulate(rows, headers=HEADERS, tablefmt="github", disable_numparse=True))


def _kinds(kinds: tuple[str, ...]) -> str:
    return "all" if kinds == OUTPUTS else ", ".join(kinds)


def _remarks(metric: Metric) -> str:
    facts = {
        "signed": metric.signed,
        "needs texts": metric.texts,
        "needs an image encoder": metric.embeds,
        "needs a package": metric.name == "lpips",
        "whole set": not metric.additive,
    }
    return ", ".join(fact for fact, holds in facts.items() if holds)


def main() -> None:
    text = PAGE.read_text("utf-8")
    PAGE.write_text(
        re.sub(r"(?:^\|.*\n)+", lambda _: metrics_table() + "\n", text, count=1, flags=re.MULTILINE), "utf-8"
    )


if __name__ == "__main__":
    main()
