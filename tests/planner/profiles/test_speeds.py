"""What a profile says of time: one line, from its own costs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.profiles import timings
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.speeds import ONE, PRODUCTS, speeds_of, speeds_text
from bitplan.planner.views import inspect
from bitplan.plans.kernels.cpu.choice import path_choice


@pytest.fixture
def timed(finished: Path, tmp_path: Path) -> Path:
    """A profile with times that were not measured: every second layer is twice as fast at w8a8, all others are twice as
    slow at every scheme."""
    path = Path(shutil.copy(finished, tmp_path / "timed.profile"))
    with open_profile(path, "a") as store:
        fast = {(layer, "w8a8") for layer in store.layers()[1::2]}
        own = {"keep": 4.0}
        store.write_costs([
            dataclasses.replace(c, ms=2.0 if (c.layer, c.scheme) in fast else own.get(c.scheme, 8.0), error=None)
            for c in store.costs()
        ])  # fmt: skip
    return path


def test_a_scheme_is_compared_over_the_layers_that_it_is_offered_to(timed: Path) -> None:
    with open_profile(timed) as store:
        speeds, count = speeds_of(store), len(store.layers())
        simulated = {cost.scheme for cost in store.costs() if cost.simulated}
    odd = count // 2
    assert speeds["w8a8"] == pytest.approx((2 * odd + 8 * (count - odd)) / (4 * count))
    assert speeds["w4g64ma8"] == pytest.approx(2.0)  # offered to some
    assert simulated and not simulated & set(speeds) and "keep" not in speeds


def test_profile_solve_and_inspect_show_the_line(timed: Path, tmp_path: Path, command_line: Any) -> None:
    with open_profile(timed) as store:
        line, products = speeds_text(store), store.baseline()[PRODUCTS]
    assert line.startswith(f"time of the layers for {ONE}: ") and "w4g64ma8 2.00x" in line and line.endswith(products)
    assert products == str(path_choice()) and products.startswith("int8 products: ")
    assert line in command_line("inspect", timed).stdout
    assert line in command_line("solve", timed, "--memory", "60%", "--out", tmp_path / "p.plan.yaml").stdout
    again = tmp_path / "again.profile"
    told = command_line("cost", timed, "--out", again).stdout
    with open_profile(again) as store:
        assert speeds_text(store) in told


def test_inspect_moves_the_timings_once(timed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And once more for the plan whose undecided layers it lists."""
    calls, steady_ms = [], timings.steady_ms
    monkeypatch.setattr(timings, "steady_ms", lambda costs: calls.append(len(costs)) or steady_ms(costs))
    monkeypatch.setattr(inspect, "open_choices", lambda *_: [])
    assert "time of the layers" in str(inspect.inspect_profile(timed))
    assert len(calls) == 1


def test_without_times_there_is_nothing_to_say(timed: Path) -> None:
    with open_profile(timed, "a") as store:
        store.write_costs([dataclasses.replace(cost, ms=None) for cost in store.costs()])
        assert speeds_of(store) == {} and speeds_text(store) == ""


def test_doctor_names_the_path_of_int8_products() -> None:
    row = next(member for member in bitplan.doctor().members if member.part == "product")
    assert (row.name, row.state) == (path_choice().path, str(path_choice()))
