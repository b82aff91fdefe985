"""Why a layer got its scheme, what binds, and what more of a budget buys, against solving by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import load_plan

LAYER = "unet.conv_out"
BUDGET = {"memory": "12%"}


@pytest.fixture
def plan(finished: Path, tmp_path: Path) -> Path:
    bitplan.solve(finished, tmp_path / "p.plan.yaml", **BUDGET)
    return tmp_path / "p.plan.yaml"


def test_every_alternative_costs_what_pinning_it_costs(plan: Path, finished: Path, tmp_path: Path) -> None:
    found = bitplan.why(plan, finished, LAYER)
    loaded = load_plan(plan)
    with open_profile(finished) as store:
        real = {c.scheme for c in store.costs() if c.layer == LAYER and not c.simulated}
    assert {each.candidate for each in found.alternatives} == real
    assert found.scheme == loaded.schemes[LAYER]
    for each in found.alternatives:
        pinned = bitplan.solve(finished, tmp_path / "pinned.yaml", pins={LAYER: each.candidate}, **BUDGET)
        assert each.cost == pytest.approx(pinned.solver["objective"] - loaded.solver["objective"], abs=1e-9)
        moved = {layer for layer in pinned.schemes if pinned.schemes[layer] != loaded.schemes[layer]} - {LAYER}
        assert set(each.moved) == moved
    assert min(each.cost for each in found.alternatives) == pytest.approx(0, abs=1e-9)
    assert max(each.cost for each in found.alternatives) > 0


def test_the_shell_marks_the_chosen_one(plan: Path, finished: Path, command_line: Any) -> None:
    result = command_line("why", plan, finished, LAYER)
    assert result.exit_code == 0, result.stderr
    scheme = load_plan(plan).schemes[LAYER]
    assert f"{LAYER} takes {scheme};" in result.stdout
    assert [line for line in result.stdout.splitlines() if "(chosen)" in line][0].startswith(f"| {scheme} (chosen)")


def test_pins_of_the_plan_hold_while_asking(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.plan.yaml"
    bitplan.solve(finished, path, pins={"unet.conv_in": "keep"}, **BUDGET)
    found = bitplan.why(path, finished, LAYER)
    assert all(each.solution.chosen["unet.conv_in"] == "keep" for each in found.alternatives if each.solution.choice)
    own = bitplan.why(path, finished, "unet.conv_in")
    assert own.pinned and "as it was pinned" in str(own)
    assert [each.candidate for each in own.alternatives] == ["keep"]


def test_a_scheme_that_fits_no_budget_is_said_to(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.plan.yaml"
    with open_profile(finished) as store:
        least: dict[str, int] = {}
        for cost in store.costs():
            if not cost.simulated:
                least[cost.layer] = min(least.get(cost.layer, cost.bytes), cost.bytes)
        largest = max(least, key=lambda layer: least[layer])
    bitplan.solve(finished, path, memory=f"{sum(least.values()) + 200}B")
    found = bitplan.why(path, finished, largest)
    forced = next(each for each in found.alternatives if each.candidate == "keep")
    assert forced.cost is None and "no plan: infeasible" in str(found)


def test_what_more_of_a_budget_buys_is_what_solving_with_more_gives(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.plan.yaml"
    plan = bitplan.solve(finished, path, memory="12%", latency="100000%", worth=True)
    more = bitplan.solve(finished, tmp_path / "q.yaml", memory=f"{plan.budgets['bytes'] + 2**20}B", latency="100000%")
    saved = plan.solver["objective"] - more.solver["objective"]
    assert plan.solver["worth"] == {"bytes": pytest.approx(saved), "ms": 0.0}
    assert saved > 0
    text = str(bitplan.inspect(path))
    assert "bytes binds: one more MiB saves" in text and "ms does not bind" in text
    assert bitplan.verify(path, finished).failures == ()


def test_confidence_plans_with_upper_bounds_and_predicts_means(finished: Path, tmp_path: Path) -> None:
    means = bitplan.solve(finished, tmp_path / "a.yaml", **BUDGET)
    even = bitplan.solve(finished, tmp_path / "b.yaml", confidence=0.5, **BUDGET)
    sure = bitplan.solve(finished, tmp_path / "c.yaml", confidence=0.99, **BUDGET)
    assert even.schemes == means.schemes
    assert sure.solver["objective"] > means.solver["objective"]
    assert sure.predictions["total"]["quality"] + sure.predictions["total"]["alignment"] < sure.solver["objective"]
    assert sure.solver["confidence"] == 0.99 and "confidence" not in means.solver


def test_a_lexicographic_objective_takes_the_first_before_the_second(finished: Path, tmp_path: Path) -> None:
    def total(column: str, **options: Any) -> float:
        return bitplan.solve(finished, tmp_path / "p.yaml", **BUDGET, **options).predictions["total"][column]

    order = "lexicographic:alignment,quality"
    best = total("alignment", objective="alignment")
    assert total("alignment", objective=order) == pytest.approx(best, rel=1e-9)
    assert total("alignment", objective=order, slack=0.2) <= 1.2 * best * (1 + 1e-12)
    qualities = [total("quality", objective=order, slack=slack) for slack in (0.0, 0.2, 1.0)]
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > qualities[-1] >= total("quality", objective="quality") * (1 - 1e-9)


def test_all_solvers_agree_as_far_as_they_promise(finished: Path, tmp_path: Path) -> None:
    from bitplan.solvers.strategies import STRATEGIES

    plans = {s.name: bitplan.solve(finished, tmp_path / "p.yaml", solver=s.name, **BUDGET) for s in STRATEGIES}
    best = plans["exact"].solver
    for name, plan in plans.items():
        assert plan.solver["bound"] <= best["objective"] * (1 + 1e-9) and plan.solver["objective"] >= best["bound"], (
            name
        )
    assert plans["ilp"].solver["objective"] == pytest.approx(best["objective"], rel=1e-6)
    assert plans["lagrangian"].solver["gap"] < plans["greedy"].solver["gap"]


def explained(costs: dict[str, float]) -> str:
    """An explanation of a layer that takes w8a8, with the costs of other schemes."""
    from types import SimpleNamespace

    from bitplan.planner.choice.why import LayerExplanation
    from bitplan.solvers.questions.alternatives import Alternative

    made: dict[str, Any] = {name: SimpleNamespace(objective=4 + cost, totals={}) for name, cost in costs.items()}
    others = tuple(Alternative(name, made[name], cost, ()) for name, cost in costs.items())
    return str(LayerExplanation("a", ("a",), "w8a8", 4.0, False, others, ()))


def test_nothing_speaks_for_a_scheme_that_ties_with_others() -> None:
    text = explained({"keep": 1.0, "w8a8": 0.0, "w6a8": 1e-12, "w4a8": -1e-12})
    assert text.endswith("\nw6a8, w4a8 would be as good: by this objective nothing speaks for w8a8")
    assert "as good" not in explained({"keep": 1.0, "w8a8": 0.0}) and "better" not in text
    assert explained({"w8a8": 0.0, "w4a8": -0.5}).endswith(
        "w4a8 would be better: the plan is not the best; solve again with more --time-limit"
    )
