"""What is said where a budget cannot be met, and where it bounds nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.choice.shortfall import shortfall
from bitplan.planner.errors import InfeasibleError
from bitplan.plans.plan import load_plan
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem, pin

COLUMNS = {"bytes": [160, 80, 40, 32, 16, 8, 64, 32, 16], "ms": [1.0, 2.0, 4.0] * 3, "loss": [0.0, 1.0, 2.0] * 3}
PROBLEM = Problem(("in", "a", "b"), (("keep", "w8", "w4"),) * 3, COLUMNS, {"loss": 1.0}, ())  # type: ignore[arg-type]
ROLES = {"in": "in", "a": "convolution", "b": "convolution"}


def budgeted(*budgets: Budget) -> Problem:
    return Problem(PROBLEM.groups, PROBLEM.candidates, COLUMNS, {"loss": 1.0}, budgets)  # type: ignore[arg-type]


def test_the_kinds_of_layers_that_hold_most_are_named_with_their_shares() -> None:
    told = shortfall(budgeted(Budget("bytes", 50)), Effort(), ROLES)
    assert told == (
        "bytes can get no smaller than 64 B (25% of full precision), above the budget of 50 B: most is in role:in "
        "(62 %), role:convolution (38 %); raise the budget to at least 25%"
    )
    assert "most is in layers at w4 (100 %)" in shortfall(budgeted(Budget("bytes", 50)), Effort(), {})


def test_a_time_stands_beside_full_precision_and_the_share_is_rounded_up() -> None:
    told = shortfall(budgeted(Budget("ms", 1.0)), Effort(), ROLES)
    assert "ms can get no smaller than 3 ms (full precision 3 ms, 1.00x), above the budget of 1 ms: " in told
    assert told.endswith("raise the budget to at least 100%")
    thirds = pin(budgeted(Budget("bytes", 1)), {"in": "w8"})
    assert "at least 40.63%" in shortfall(thirds, Effort(), {})  # 104 of 256: 40.625 %


def test_layers_that_cannot_take_less_are_named() -> None:
    told = shortfall(pin(budgeted(Budget("bytes", 100)), {"in": "keep"}), Effort(), ROLES)
    assert "in (keep, 160 B) cannot take less, by a pin" in told and "at least 71.88%" in told


def test_the_budget_that_is_said_to_be_enough_is_enough(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.plan.yaml"
    for word, small in (("memory", "1B"), ("latency", "1us")):
        with pytest.raises(InfeasibleError, match="most is in role:[a-z-]+ ") as error:
            bitplan.solve(finished, out, **{word: small}, kernels="fake")
        enough = re.search(r"at least ([\d.]+)%$", str(error.value))
        assert enough
        bitplan.solve(finished, out, **{word: f"{enough[1]}%"}, kernels="fake")
        with pytest.raises(InfeasibleError):
            bitplan.solve(finished, out, **{word: f"{float(enough[1]) - 0.02}%"}, kernels="fake")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no budget on memory, latency or bits is given"),
        (["--memory", "8GB"], "the budget of 7.451 GiB is above full precision's "),
        (["--memory", "100%"], "is no less than full precision's "),
        (["--bits", "64"], "is above full precision's "),
        (["--memory", "8GB", "--latency", "1e6ms"], "; the budget of 1000000 ms is above full precision's "),
        (["--cap", "quality=w8a8"], "no budget on memory, latency or bits is given"),
    ],
)
def test_a_plan_that_quantizes_nothing_says_why(
    finished: Path, tmp_path: Path, command_line: Any, options: list[str], said: str
) -> None:
    out = tmp_path / "p.plan.yaml"
    told = command_line("solve", finished, *options, "--out", out)
    assert set(load_plan(out).schemes.values()) == {"keep"}
    assert said in told.stderr and ": nothing is quantized; give a smaller one, such as --memory 25%" in told.stderr


def test_a_plan_that_quantizes_something_does_not(finished: Path, tmp_path: Path, command_line: Any) -> None:
    for options in (["--memory", "50%"], ["--memory", "8GB", "--objective", "bytes=1"]):
        told = command_line("solve", finished, *options, "--out", tmp_path / "p.plan.yaml")
        assert told.exit_code == 0 and "nothing is quantized" not in told.stderr


def test_solve_and_inspect_say_what_bytes_and_times_count(finished: Path, tmp_path: Path, command_line: Any) -> None:
    out = tmp_path / "p.plan.yaml"
    for told in (command_line("solve", finished, "--memory", "50%", "--out", out), command_line("inspect", finished)):
        counted = re.search(r"^bytes count the stored weights of the \d+ planned layers, .*$", told.stdout, re.M)
        assert counted and re.search(r"unet [\d.]+ MiB of a pipeline of [\d.]+ MiB", counted[0]), told.stdout
        assert "stay as they are" in counted[0] and "time of the layers for one output at a time" in told.stdout
    solved = command_line("inspect", out).stdout
    assert re.search(
        r"predicted: bytes [\d,]+ \([\d.]+ MiB of [\d.]+ MiB\), ms [\d.]+ ms \(full precision [\d.]+ ms", solved
    )
    for verb in ("verify", "predict"):
        assert re.search(r"ms \(full precision [\d.]+ ms, [\d.]+x\)", command_line(verb, out, finished).stdout), verb
    for told in (command_line("sweep", finished, "--points", "3", "--out", tmp_path / "run"),
                 command_line("why", out, finished, next(iter(load_plan(out).schemes)))):  # fmt: skip
        assert "ms (x full precision)" in told.stdout and re.search(r"\| [\d.]+ \([\d.]+x\)", told.stdout)
