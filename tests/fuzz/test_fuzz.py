"""A small sample of each family of nasty input; `python -m benchmarks.fuzz --cases N` runs more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.families import FAMILIES

ROOT = Path(__file__).parents[2]
CASES = 256


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run with a fixed seed, in a process without the tests' threads."""
    out = tmp_path_factory.mktemp("fuzz") / "fuzz.json"
    command = [sys.executable, "-m", "benchmarks.fuzz", "--cases", str(CASES), "--seed", "7", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.exists(), done.stderr[-2000:]
    return dict(json.loads(out.read_text()))


@pytest.mark.parametrize("name", FAMILIES)
def test_nasty_input_is_refused_in_one_line_or_right(sample: dict[str, Any], name: str) -> None:
    row = sample["families"][name]
    assert row["kinds"] == {}, f"run `python -m benchmarks.fuzz --seed 7 --family {name} --case N` of these"
    assert row["cases"] >= 7


def test_the_sample_also_accepts(sample: dict[str, Any]) -> None:
    """Spoilt files are refused, and good ones, and those spoilt where it does not matter, are not."""
    for name in ("profiles", "sweeps", "plans", "foreign", "lines"):
        row = sample["families"][name]
        assert 0.1 < row["accepted"] / row["commands"] < 0.9, name
