"""The benchmarks' own readers and judges: a benchmark that cannot tell right from wrong shows nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import brute_force, mmkp, scale

from bitplan.solvers.solution import Status, choice_of
from bitplan.solvers.solve import solve
from tests.solvers import oracle
from tests.solvers.test_solve import HERE, only_the_program

MMKP = os.environ.get("BITPLAN_MMKP")
SMALL = """
 2  2 1
 5
 1
 7.50  1
 9.25  4
 2
 1.00  0
 2.00  3
 1  0  10.25
 Upper bound
"""


def test_random_cases_are_judged_as_the_oracle_does() -> None:
    """The vectorised brute force against the plain one in rational arithmetic, on the smaller cases."""
    seen = set()
    for number in range(150):
        made = brute_force.case(1, number)
        if np.prod([len(names) for names in made.problem.candidates]) > 300:
            continue
        best, least = oracle.best(made.problem), brute_force.least(made)
        assert (best is None) == (least is None)
        assert best is None or least is None or best == least / 2 ** made.power["quality"]
        seen.add(best is None)
        assert brute_force.verdict(made, solve(made.problem)) == ("infeasible" if best is None else "optimal")
    assert seen == {True, False}


def test_wrong_answers_are_called_wrong() -> None:
    number = next(n for n in range(100) if brute_force.check(0, None, n)[0] == "optimal" and _loose(n))
    made = brute_force.case(0, number)
    right = solve(made.problem)
    for status in (Status.FEASIBLE, Status.INFEASIBLE):
        assert brute_force.verdict(made, replace(right, status=status)).startswith("wrong: ")
    worst = max(oracle.choices(made.problem), key=lambda picks: oracle.objective(made.problem, picks))
    assert "wrong: " in brute_force.verdict(made, replace(right, choice=choice_of(made.problem, worst)))
    assert "bound" in brute_force.verdict(made, replace(right, bound=right.objective + 1.0))


def _loose(number: int) -> bool:
    """Whether the case is small and its choices differ in the objective."""
    problem = brute_force.case(0, number).problem
    few = np.prod([len(names) for names in problem.candidates]) <= 300
    return bool(few) and len({oracle.objective(problem, picks) for picks in oracle.choices(problem)}) > 1


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("number", [164, 980, 2545])
def test_no_backend_calls_optimal_what_is_not(backend: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where HiGHS 1.15.1 may presolve, it does so for each of these."""
    only_the_program(monkeypatch)
    assert brute_force.check(7, backend, number)[0] == "optimal"


def test_standard_format_is_read(tmp_path: Path) -> None:
    (tmp_path / "I99").write_text(SMALL)
    (tmp_path / "mmkp.opt").write_text("I99 -10.25 1\n")
    instance = mmkp.read(tmp_path / "I99")
    assert mmkp.best_known(tmp_path) == {"I99": (10.25, True)}
    row = mmkp.measure(instance, (10.25, True), 10.0)
    assert (row.ours, row.status) == (10.25, "optimal") and row.bound == pytest.approx(10.25)
    (tmp_path / "I99").write_text(SMALL.replace("\n 2\n", "\n 3\n"))
    with pytest.raises(ValueError, match="group 2 is numbered 3"):
        mmkp.read(tmp_path / "I99")


@pytest.mark.skipif(MMKP is None, reason="BITPLAN_MMKP does not name the folder of the MMKP instances")
@pytest.mark.parametrize("name", ["I01", "I02", "I03", "I05", "I06"])
def test_standard_instances(name: str) -> None:
    known = mmkp.best_known(Path(MMKP or ""))[name]
    row = mmkp.measure(mmkp.read(Path(MMKP or "") / name), known, 60.0)
    assert row.status == "optimal" and row.ours == pytest.approx(known[0], abs=1e-6)


def test_every_way_gives_the_same_plan_at_every_scale() -> None:
    problem = scale.sliced(15, 2)
    for way in scale.WAYS:
        plans = {scale.plan(problem, way, power) for power in (-30, -15, 0, 5, 30)}
        assert len(plans) == 1, way
