"""A plan checked against its profile: what is right passes, and each way of spoiling it is found and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

import bitplan
from bitplan.planner.choice import verify
from bitplan.planner.choice.evidence import groups_of, read_evidence
from bitplan.planner.choice.record import picks_of, problem_of
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import Plan, load_plan
from bitplan.solvers.certify import lower_bound

REQUESTS: dict[str, dict[str, Any]] = {
    "no budget": {},
    "memory": {"memory": "20%"},
    "three budgets": {"memory": "25%", "latency": "100000%", "caps": {"alignment": "w4g64ma8"}},
    "one column twice": {"memory": "20%", "bits": 5.0},
    "simulated": {"memory": "12%", "kernels": "fake"},
    "pinned": {"memory": "20%", "pins": {"unet.conv_in": "w2ma8", "unet.conv_out": "keep"}},
    "uniform": {"uniform": "w8a8"},
    "a gap": {"memory": "17%", "gap": 0.05},
    "weights": {"memory": "15%", "objective": "quality=1,nsr=0.5,ms=0.01"},
    "lexicographic": {"memory": "20%", "objective": "lexicographic:alignment,quality", "slack": 0.1},
    "confidence": {"memory": "20%", "confidence": 0.95},
    "greedy": {"memory": "20%", "solver": "greedy"},
    "lagrangian": {"memory": "20%", "solver": "lagrangian"},
    "ilp": {"memory": "20%", "latency": "100000%", "solver": "ilp"},
}


@pytest.fixture
def solve(finished: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(**options: Any) -> Path:
        bitplan.solve(finished, tmp_path / "p.plan.yaml", **options)
        return tmp_path / "p.plan.yaml"

    return run


@pytest.mark.parametrize("options", [pytest.param(options, id=name) for name, options in REQUESTS.items()])
def test_every_plan_that_solve_writes_checks(options: dict[str, Any], solve: Any, finished: Path) -> None:
    found = bitplan.verify(solve(**options), finished)
    assert found.failures == ()
    held, bound, costs = found.notes
    assert costs.startswith("the planned layers: ")
    assert ("budgets hold exactly" in held) == any(k in options for k in ("memory", "bits"))
    assert ("certified" in bound) == ("uniform" in options)
    assert ("(weak duality, exact)" in bound) == ("uniform" not in options)


def test_the_certified_bound_is_that_of_the_best_relaxation(solve: Any, finished: Path, latency: Any) -> None:
    """With prices of 0 it is the sum of the least losses, which is far below."""
    plan = load_plan(solve(memory="12%", latency=latency(memory="12%")))
    with open_profile(finished) as store:
        problem = problem_of(read_evidence(store), plan)
    prices = [plan.solver["prices"][budget.column] for budget in problem.budgets]
    bound = float(lower_bound(problem, prices))
    assert list(plan.solver["prices"]) == list(plan.budgets) and prices[0] > 0
    assert 0.5 * plan.solver["objective"] < bound <= plan.solver["objective"]
    assert float(lower_bound(problem, [0.0] * len(prices))) < bound


def test_a_plan_s_problem_is_the_one_that_it_solves(solve: Any, finished: Path) -> None:
    plan = load_plan(solve(memory="20%", pins={"unet.conv_in": "w2ma8"}))
    with open_profile(finished) as store:
        evidence = read_evidence(store)
    problem = problem_of(evidence, plan)
    picks, wrong = picks_of(problem, evidence, plan)
    assert wrong == ()
    named = {
        g: problem.candidates[i][pick - problem.offsets[i]]
        for i, (g, pick) in enumerate(zip(problem.groups, picks, strict=True))
    }
    assert named == {group: plan.schemes[group] for group in groups_of(evidence)}
    assert problem.allowed[list(problem.members(problem.positions["unet.conv_in"]))].sum() == 1


def raised_bound(plan: dict[str, Any]) -> None:
    plan["solver"]["bound"] = plan["solver"]["objective"] * 1.01
    plan["solver"]["gap"] = 0.0


def another_scheme(plan: dict[str, Any]) -> None:
    plan["schemes"]["unet.conv_out"] = "keep" if plan["schemes"]["unet.conv_out"] != "keep" else "w8a8"


def a_tie_broken(plan: dict[str, Any]) -> None:
    layer = next(a for a in plan["schemes"] if a.endswith("attn1.to_q"))
    plan["schemes"][layer] = "w4a4"
    plan["simulated"] = [layer]


SPOILT: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a changed scheme": (r"predictions\.total\.bytes is \d+, and the sum is \d+", another_scheme),
    "a scheme that is not offered": ("unet.conv_in takes w3a8, and the profile offers keep, w8a8",
                                     lambda p: p["schemes"].update({"unet.conv_in": "w3a8"})),
    "a tie broken": ("tied groups .* differ: 'a", a_tie_broken),
    "a changed total": (r"predictions\.total\.nsr", lambda p: p["predictions"]["total"].update(nsr=1e-9)),
    "one byte less": (r"total\.bytes", lambda p: p["predictions"]["total"].update(
        bytes=p["predictions"]["total"]["bytes"] - 1)),
    "a total gone": ("total.ms is missing", lambda p: p["predictions"]["total"].pop("ms")),
    "a total too many": ("nil is not a column", lambda p: p["predictions"]["total"].update(nil=0)),
    "a block's total": (r"predictions\.blocks\.[\w.]+\.ms is", lambda p: next(
        iter(p["predictions"]["blocks"].values())).update(ms=0.5)),
    "full precision's bytes": (r"predictions\.full\.[\w.]+\.bytes is", lambda p: next(
        iter(p["predictions"]["full"].values())).update(bytes=1)),
    "a block gone": ("predictions.blocks", lambda p: p["predictions"]["blocks"].popitem()),
    "a budget below the sum": (r"bytes is \d+, 1 above \d+", lambda p: p["budgets"].update(
        bytes=p["predictions"]["total"]["bytes"] - 1)),
    "a raised budget": ("solver.gap|certified|status is optimal|objective", lambda p: (
        p["budgets"].update(bytes=p["budgets"]["bytes"] * 2), p["solver"].update(bound=0.0))),
    "a smaller objective": ("solver.objective is", lambda p: p["solver"].update(
        objective=p["solver"]["objective"] * 0.99)),
    "a bound above the objective": ("is above the plan's own objective", raised_bound),
    "a gap that is none": ("solver.gap is", lambda p: p["solver"].update(gap=0.5)),
    "optimal without proof": ("status is optimal, and", lambda p: (
        p["solver"].pop("gap"), p["solver"].update(bound=p["solver"]["objective"] / 2))),
    "other weights": ("solver.objective is", lambda p: p["solver"].update(weights={"quality": 2.0})),
    "a pin that does not hold": ("is not allowed", lambda p: p["solver"].update(
        pins={"unet.conv_in": "keep" if p["schemes"]["unet.conv_in"] != "keep" else "w8a8"})),
    "simulated layers": ("`simulated`", lambda p: p.update(simulated=["unet.conv_in"])),
    "another confidence": ("solver.objective is", lambda p: p["solver"].update(confidence=0.9)),
    "another model": ("own profile", lambda p: p["model"].update(fingerprint="0" * 64)),
    "a layer too many": ("differ in 1 layers, such as unet.x", lambda p: p["schemes"].update({"unet.x": "w8a8"})),
}  # fmt: skip


@pytest.mark.parametrize(("said", "change"), [pytest.param(*case, id=name) for name, case in SPOILT.items()])
def test_what_is_spoilt_is_found(
    said: str, change: Callable[[dict[str, Any]], object], solve: Any, finished: Path, command_line: Any
) -> None:
    path = solve(memory="14%")
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    result = command_line("verify", path, finished)
    assert result.exit_code == 2, result.output
    assert re.search(said, result.stderr), result.stderr
    assert result.stdout == ""
    assert all(line.startswith("bitplan: ") for line in result.stderr.splitlines())


def test_several_failures_are_a_line_each(solve: Any, finished: Path, command_line: Any) -> None:
    path = solve(memory="14%")
    data = yaml.safe_load(path.read_text())
    data["predictions"]["total"]["ms"] = 1.0
    data["budgets"]["bytes"] = 5
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    lines = command_line("verify", path, finished).stderr.splitlines()
    assert len(lines) >= 2
    assert any("total.ms" in line for line in lines) and any("bytes is" in line for line in lines)


def test_a_plan_without_prices_checks_without_a_bound(solve: Any, finished: Path) -> None:
    path = solve(memory="14%")
    data = yaml.safe_load(path.read_text())
    del data["solver"]["prices"]
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    found = bitplan.verify(load_plan(path), finished)
    assert not found.failures and "no bound is certified" in str(found)


@pytest.mark.parametrize("prices", [0.0, 1e-12, 1.0, 1e9])
def test_no_prices_make_a_bound_above_the_optimum(prices: float, solve: Any, finished: Path) -> None:
    path = solve(memory="14%")
    data = yaml.safe_load(path.read_text())
    data["solver"]["prices"]["bytes"] = prices
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    assert bitplan.verify(path, finished).failures == ()  # worse prices prove less, never something false


def worse(solve: Any) -> tuple[str, Plan]:
    """A budget at which greedy misses the optimum, and what it finds there."""
    for memory in ("14%", "13%", "15%", "17%", "11%", "19%", "23%"):
        found = load_plan(solve(memory=memory, solver="greedy"))
        if found.solver["objective"] > 1.0001 * load_plan(solve(memory=memory)).solver["objective"]:
            return memory, found
    raise AssertionError("greedy is optimal everywhere: the tests that need a worse plan prove nothing")


def test_the_gap_told_is_never_smaller_than_it_is(solve: Any, finished: Path) -> None:
    memory, plan = worse(solve)
    best = load_plan(solve(memory=memory)).solver["objective"]
    missed = 100 * (plan.solver["objective"] - best) / plan.solver["objective"]
    text = bitplan.verify(plan, finished).notes[1]
    assert float(text.split("more than ")[1].split(" %")[0]) >= missed


def test_proving_again_agrees_and_finds_what_is_claimed_too_much(solve: Any, finished: Path, command_line: Any) -> None:
    memory, claimed = worse(solve)
    result = command_line("verify", solve(memory=memory), finished, "--prove")
    assert result.exit_code == 0, result.stderr
    assert "0 % under the plan's" in result.stdout
    path = solve(memory=memory, solver="greedy")
    data = yaml.safe_load(path.read_text())
    data["solver"] |= {"status": "optimal", "bound": claimed.solver["objective"], "gap": 0.0}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    assert bitplan.verify(path, finished).failures == ()  # nothing without a solver contradicts the claim
    failures = bitplan.verify(path, finished, prove=True).failures
    assert len(failures) == 1 and "under the bound" in failures[0]


@pytest.mark.parametrize("share", [Fraction(1, 10**310), Fraction(1, 10**400), Fraction(5e-324)])
def test_a_gap_below_what_floats_tell_from_zero_is_told(share: Fraction) -> None:
    assert verify._percent(share) == "less than 1e-300 %"
    assert verify._percent(Fraction(1, 3)) == "33.4 %" and verify._percent(Fraction(0)) == "0 %"
