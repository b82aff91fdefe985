"""The engine finds what families are for: planted faults of each kind, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.values import mutated, spoilt, text_of

ROOT = Path(__file__).parents[2]
PLANTED = """
import ctypes, importlib, os, sys
from pathlib import Path
from tests.fuzz import engine, families
from tests.fuzz.box import watched
from tests.fuzz.case import Family
from tests.fuzz.world import World

def run(case):
    kind = case.number % 8
    with watched(case.box):
        if kind == 0: raise KeyError("x")
        if kind == 1: ctypes.string_at(0)
        while kind == 2: pass
        if kind == 3: (case.box.root / "sibling/victim.yaml").write_text("no")
        if kind == 4: sys.path.append(""); importlib.import_module("canary_module")
        if kind == 5: os.remove("../sibling/victim.yaml")
        if kind == 6: (case.box.out / "fine").write_text("")
        if kind == 7: (case.box.root / "sibling/picture.png").read_bytes()

engine.SOFT = 0.5
for result in engine.run_family(Family("planted", "", run), 0, range(8), World(Path(sys.argv[1]))):
    print(result.number, [kind for kind, _ in result.findings])
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("world")
    done = subprocess.run([sys.executable, "-c", PLANTED, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("number", "kind"),
    [(0, "raised KeyError"), (1, "the process ended: signal SIGSEGV"), (2, "takes over 0 s"),
     (3, "outside --out: wrote"), (4, "outside --out: imported"), (5, "outside --out: os.remove"),
     (7, "outside --out: read")],
)  # fmt: skip
def test_a_planted_fault_is_found_and_the_next_case_runs(planted: list[str], number: int, kind: str) -> None:
    assert planted[number].startswith(f"{number} ['") and kind in planted[number]


def test_a_write_into_out_is_no_fault(planted: list[str]) -> None:
    assert planted[6] == "6 []" and len(planted) == 8


def test_a_case_is_a_function_of_its_seed() -> None:
    import random

    data = {"a": [1, {"b": "x"}], "c": None}
    made = [[text_of(mutated(data, random.Random(f"0/{i}"), 2)) for i in range(200)] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 100
    assert spoilt(b"abc" * 50, random.Random(1)) == spoilt(b"abc" * 50, random.Random(1)) != b"abc" * 50
    assert data == {"a": [1, {"b": "x"}], "c": None}
