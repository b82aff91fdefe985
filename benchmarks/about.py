"""Writes the result file of a benchmark, with the machine, the versions and the seed that its figures come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitplan.planner.costs.machine import about_machine


def about(seed: int | None, *packages: str, **more: Any) -> dict[str, Any]:
    """Returns what a measurement depends on besides its inputs.

    seed: of all random numbers, None where none are drawn; packages: those whose versions matter besides torch; more:
    settings of the benchmark.
    """
    machine = about_machine()
    return {**more, "seed": seed, **machine, "versions": {**machine["versions"], **{p: version(p) for p in packages}}}


def write_result(path: Path, result: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Writes the result as JSON. described: a value of `about`."""
    path.write_text(json.dumps({**result, "about": described}, indent=1) + "\n", "utf-8")
