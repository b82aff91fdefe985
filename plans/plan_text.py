"""Summarizes a plan in one paragraph. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitplan.plans.checks import printable

_Amounts = Mapping[str, int | float]  # column -> value


def summary(
    name: str, schemes: Mapping[str, str], budgets: _Amounts, totals: _Amounts, solver: Mapping[str, Any]
) -> str:
    """Returns the model's name, the schemes by number of layers, the limits, the predictions, and the solver's status.

    Args:
        name: of the model.
        schemes: layer address -> scheme.
        budgets: column -> limit.
        totals: column -> predicted sum.
        solver: how the solver ended; empty without a solver.
    """
    counts = Counter(schemes.values()).most_common()
    uses = ", ".join(f"{scheme} x {count}" for scheme, count in counts)
    parts = [f"plan for {name}, {len(schemes)} layers: {uses}"]
    if budgets:
        parts.append(f"limits: {_listed(budgets)}")
    if totals:
        parts.append(f"predicted: {_listed(totals)}")
    if solver:
        parts.append(f"solver: {solver['status']}")
    return printable("; ".join(parts))


def _listed(amounts: _Amounts) -> str:
    texts = {name: f"{value:,}" if name == "bytes" else f"{value:.4g}" for name, value in amounts.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())
