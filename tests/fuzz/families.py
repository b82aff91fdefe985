"""The families of nasty input: one table."""

from __future__ import annotations

from tests.fuzz import asks, configs, fitted, foreign, lines, packed, plans, profiles, prompts, sweeps
from tests.fuzz.case import Family

FAMILIES = {
    family.name: family
    for family in (
        Family("profiles", "values, rows, tables and bytes of profiles", profiles.run, 6),
        Family("sweeps", "sweep.json, and names in it", sweeps.run, 3),
        Family("plans", "plan files", plans.run, 4),
        Family("packed", "packed folders: configurations, headers, tensors", packed.run, 4),
        Family("fitted", "fitted parameters of plans", fitted.run, 1),
        Family("configs", "configurations of diffusers' own", configs.run, 1),
        Family("prompts", "files of prompts", prompts.run, 6),
        Family("foreign", "measurements of another tool", foreign.run, 2),
        Family("asks", "requests to the explorer", asks.run, 1),
        Family("lines", "command lines", lines.run, 6),
    )
}


def shares(cases: int, names: tuple[str, ...] = ()) -> dict[str, int]:
    """How many of so many cases each family runs."""
    chosen = [family for name, family in FAMILIES.items() if not names or name in names]
    whole = sum(family.share for family in chosen)
    return {family.name: max(1, cases * family.share // whole) for family in chosen}
