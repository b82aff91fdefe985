"""The whole story on a tiny pipeline: profile, solve, apply, restore, evaluate, inspect; from Python and the shell."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import bitplan
from bitplan.planner.applied.binding import fitted_in
from bitplan.planner.errors import InfeasibleError, UserError
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import components, generate
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.timings import steadied
from bitplan.plans.layers.addresses import module_at
from bitplan.plans.layers.modules import QuantConv2d, QuantLinear, weight_bytes
from bitplan.plans.plan import Plan, PlanError, load_plan
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.runs.calls import recorded_calls
from tests import tiny

FIRST_TOKEN = "w8a8t+first"
GENERATION = Generation(2, 2.0, 5)
Solve = Callable[..., Plan]


@pytest.fixture
def solve(finished: Path, tmp_path: Path) -> Solve:
    return lambda **options: bitplan.solve(finished, tmp_path / "p.plan.yaml", **options)


@pytest.fixture(scope="module")
def full(finished: Path) -> dict[str, float]:
    """Bytes and milliseconds in full precision, summed by hand."""
    with open_profile(finished) as store:
        kept = [cost for cost in steadied(store.costs()) if cost.scheme == "keep"]
    return {"bytes": sum(c.bytes for c in kept), "ms": math.fsum(c.ms or 0 for c in kept)}


def images(pipe: Any) -> torch.Tensor:
    return generate(pipe, tiny.PROMPTS, GENERATION)


def held(pipe: Any, plan: Plan) -> int:
    return sum(weight_bytes(module_at(components(pipe, ["unet"]), layer)) for layer in plan.schemes)


PLANS: dict[str, dict[str, Any]] = {
    "memory in per cent": {"memory": "30%"},
    "memory in MiB": {"memory": "0.4MiB"},
    "bits": {"bits": 5.5},
    "no budget": {},
    "uniform": {"uniform": "w4g64ma8"},
    "simulated": {"memory": "15%", "kernels": "fake"},
    "for alignment": {"memory": "12%", "objective": "alignment"},
    "with a static range": {"memory": "50%", "pins": {}},
}


@pytest.mark.parametrize("options", [pytest.param(options, id=name) for name, options in PLANS.items()])
def test_predicted_bytes_are_the_bytes_held_and_restore_is_exact(
    options: dict[str, Any], solve: Solve, pipe: Any
) -> None:
    if "pins" in options:
        options = options | {"pins": dict.fromkeys(first_token_layers(pipe), FIRST_TOKEN)}
    plan = solve(**options)
    before, size = images(pipe), held(pipe, plan)
    assert bitplan.apply(pipe, plan, kernels=options.get("kernels", "int")) is pipe
    assert held(pipe, plan) == plan.predictions["total"]["bytes"]
    assert torch.equal(images(pipe), before) == (set(plan.schemes.values()) == {"keep"})
    assert bitplan.restore(pipe) is pipe
    assert held(pipe, plan) == size
    assert torch.equal(images(pipe), before)


def first_token_layers(pipe: Any) -> list[str]:
    return [f"unet.{name}" for name, _ in pipe.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]


def test_what_full_precision_costs_is_what_a_plan_predicts_that_keeps_all(solve: Solve) -> None:
    full, kept = solve(memory="20%").predictions["full"], solve(uniform="keep").predictions
    assert (
        kept["full"]
        == full
        == {block: {column: sums[column] for column in ("bytes", "ms")} for block, sums in kept["blocks"].items()}
    )


def test_what_the_blocks_predict_sums_to_the_total(solve: Solve) -> None:
    predicted = solve(memory="20%").predictions
    for column, total in predicted["total"].items():
        assert math.isclose(total, math.fsum(block[column] for block in predicted["blocks"].values()), rel_tol=1e-9)


def test_a_plan_is_applied_once(solve: Solve, pipe: Any) -> None:
    plan = solve(memory="30%")
    bitplan.apply(pipe, plan)
    with pytest.raises(UserError, match="restore"):
        bitplan.apply(pipe, plan)
    bitplan.restore(pipe)
    with pytest.raises(UserError, match="nothing to restore"):
        bitplan.restore(pipe)
    bitplan.apply(pipe, plan)


def test_without_originals_there_is_no_way_back(solve: Solve, pipe: Any) -> None:
    bitplan.apply(pipe, solve(memory="30%"), keep_originals=False)
    with pytest.raises(ValueError, match="load the pipeline again"):
        bitplan.restore(pipe)


def test_an_applied_pipeline_is_still_diffusers_own(solve: Solve, pipe: Any) -> None:
    before = {name: type(module) for name, module in pipe.unet.named_modules()}
    bitplan.apply(pipe, solve(memory="30%"))
    for name, module in pipe.unet.named_modules():
        assert type(module) is before[name] or type(module) in (QuantLinear, QuantConv2d)
        assert isinstance(module, before[name])
    assert isinstance(pipe, DiffusionPipeline)


def test_int_and_fake_kernels_agree_in_every_layer(solve: Solve, pipe: Any) -> None:
    plan = solve(memory="18%", pins=dict.fromkeys(first_token_layers(pipe), FIRST_TOKEN))
    outputs: dict[str, dict[str, torch.Tensor]] = {}
    inputs = layer_inputs(pipe, plan)
    for kernels in ("int", "fake"):
        bitplan.apply(pipe, plan, kernels=kernels)
        with torch.no_grad():
            outputs[kernels] = {layer: module_at(components(pipe, ["unet"]), layer)(x) for layer, x in inputs.items()}
        bitplan.restore(pipe)
    assert len(set(plan.schemes.values())) > 2
    for layer, fake in outputs["fake"].items():
        assert (outputs["int"][layer] - fake).norm() <= 1e-5 * fake.norm(), (layer, plan.schemes[layer])


def layer_inputs(pipe: Any, plan: Plan) -> dict[str, torch.Tensor]:
    """What each layer is given in one full-precision run."""
    with contextlib.ExitStack() as stack:
        calls = {
            layer: stack.enter_context(recorded_calls(module_at(components(pipe, ["unet"]), layer)))
            for layer in plan.schemes
        }
        images(pipe)
    return {layer: seen[0].args[0] for layer, seen in calls.items()}


def test_the_same_request_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    requests = [{"memory": "25%", "caps": {"alignment": "w4g64ma8"}}, {"memory": "15%", "kernels": "fake"}]
    for request in requests:
        paths = [tmp_path / name for name in ("a.yaml", "b.yaml")]
        plans = [bitplan.solve(finished, path, **request) for path in paths]
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert load_plan(paths[0]) == plans[0]


def test_budgets_are_met(solve: Solve, full: dict[str, float], latency: Callable[..., str]) -> None:
    def total(column: str, **options: Any) -> float:
        return solve(**options).predictions["total"][column]

    assert total("bytes") <= full["bytes"]
    for percent in (12, 25, 50):
        assert 0 < total("bytes", memory=f"{percent}%") <= full["bytes"] * percent / 100
    assert total("bytes", memory="0.25MiB") <= 2**18
    assert total("bytes", bits=4.5) <= 4.5 / 32 * full["bytes"]
    limit = latency(memory="60%")
    assert total("ms", latency=limit, memory="60%") <= float(limit.removesuffix("ms"))
    assert total("ms", latency=f"{2 * full['ms']}ms") <= 2 * full["ms"]
    bound = 0.8 * total("clip_drop", memory="12%")
    assert total("clip_drop", memory="14%", caps={"clip_drop": str(bound)}) <= bound
    bound = solve(uniform="w8a8").predictions["total"]["alignment"]
    assert total("alignment", memory="40%", caps={"alignment": "w8a8"}) <= bound


def test_the_tighter_of_two_bounds_counts_and_is_the_one_written(solve: Solve, full: dict[str, float]) -> None:
    for options, tighter in (({"memory": "25%", "bits": 16.0}, 0.25), ({"memory": "50%", "bits": 8.0}, 0.25)):
        plan = solve(**options)
        assert plan.predictions["total"]["bytes"] <= plan.budgets["bytes"] == int(full["bytes"] * tighter)


def test_more_memory_never_hurts(solve: Solve) -> None:
    objectives = [solve(memory=f"{percent}%").solver["objective"] for percent in (10, 15, 25, 50, 100)]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[0] > objectives[-1] == 0


def test_a_latency_budget_pulls_towards_the_faster_schemes(finished: Path, tmp_path: Path) -> None:
    """With times that were not measured: on layers so small which scheme is faster is chance."""
    path = shutil.copy(finished, tmp_path / "timed.profile")
    with open_profile(path, "a") as store:
        costs = store.costs()
        store.write_costs(
            [dataclasses.replace(cost, ms=1.0 if cost.scheme == "keep" else 2.0, error=None) for cost in costs]
        )
        layers = len(store.layers())
    free = bitplan.solve(path, tmp_path / "p.yaml", memory="60%").predictions["total"]
    plan = bitplan.solve(path, tmp_path / "p.yaml", memory="60%", latency=f"{(free['ms'] + layers) / 2}ms")
    assert layers < plan.predictions["total"]["ms"] < free["ms"]
    assert plan.solver["objective"] >= 0


def test_no_smaller_number_than_the_smallest(solve: Solve) -> None:
    with pytest.raises(InfeasibleError, match="can get no smaller than"):
        solve(memory="3%")


def test_int_kernels_never_get_a_simulated_scheme_and_fake_ones_are_marked(solve: Solve, finished: Path) -> None:
    with open_profile(finished) as store:
        simulated = {(c.layer, c.scheme) for c in store.costs() if c.simulated}
    assert {scheme for _, scheme in simulated} == {"w4a4"}
    real, fake = solve(memory="12%"), solve(memory="12%", kernels="fake")
    assert not simulated & set(real.schemes.items())
    assert real.simulated == ()
    chosen = [layer for layer, scheme in fake.schemes.items() if scheme == "w4a4"]
    assert chosen  # else this proves nothing
    assert fake.simulated == tuple(chosen)
    with pytest.raises(UserError, match="no kernel runs w4a4"):
        solve(pins={"unet.conv_in": "w4a4"})


def test_static_ranges_travel_in_the_plan(solve: Solve, finished: Path, pipe: Any, tmp_path: Path) -> None:
    pinned = first_token_layers(pipe)
    solve(memory="40%", pins=dict.fromkeys(pinned, FIRST_TOKEN))
    plan = load_plan(tmp_path / "p.plan.yaml")
    with open_profile(finished) as store:
        seen = store.ranges()
    static = {layer for layer, text in plan.schemes.items() if parse_scheme(text).inputs.static}
    assert static == set(fitted_in(plan))
    assert pinned
    for layer in pinned:
        ranges = fitted_in(plan)[layer]["input_range"].tolist()
        assert ranges == [seen[layer]["rest_absmax"], seen[layer]["first_absmax"]]


def test_uniform_takes_one_scheme_wherever_it_is_offered(solve: Solve, finished: Path) -> None:
    with open_profile(finished) as store:
        offered = {cost.layer for cost in store.costs() if cost.scheme == "w4g64ma8"}
    plan = solve(uniform="w4g64ma8")
    assert plan.solver["status"] == "uniform"
    assert plan.schemes == {layer: "w4g64ma8" if layer in offered else "keep" for layer in plan.schemes}
    assert 0 < len(offered) < len(plan.schemes)


def test_pins_hold(solve: Solve) -> None:
    pins = {"unet.conv_in": "w2ma8", "unet.conv_out": "keep"}
    for options in ({"memory": "20%"}, {"uniform": "w8a8"}):
        plan = solve(pins=pins, **options)
        assert {layer: plan.schemes[layer] for layer in pins} == pins
        assert len(set(plan.schemes.values())) > 1
    with pytest.raises(UserError, match="did you mean 'unet.conv_in'"):
        solve(pins={"unet.conv_im": "w2ma8"})


def test_layers_of_one_input_share_an_activation_format(solve: Solve, finished: Path) -> None:
    with open_profile(finished) as store:
        shared = store.graph()["shared_inputs"]
    plan = solve(memory="12%", kernels="fake")
    assert shared
    for family in shared:
        assert len({parse_scheme(plan.schemes[layer]).shared_side for layer in family}) == 1


def test_a_fine_tune_takes_the_plan_when_asked(solve: Solve, pipe: Any) -> None:
    plan = solve(memory="30%")
    with torch.no_grad():
        pipe.unet.conv_in.weight.add_(1e-3)
    before = images(pipe)
    with pytest.raises(PlanError, match="--allow-mismatch"):
        bitplan.apply(pipe, plan)
    assert torch.equal(images(pipe), before)  # refused before anything was swapped
    bitplan.apply(pipe, plan, allow_mismatch=True)
    assert held(pipe, plan) == plan.predictions["total"]["bytes"]
    assert not torch.equal(images(pipe), before)


def test_the_predicted_noise_is_near_the_measured_one(solve: Solve, pipe: Any, clip_folder: Path) -> None:
    """On the prompts and noise of the profile, the sum over layers tells the order of magnitude of the whole."""
    from bitplan.planner.evaluation.evaluator import build_evaluator
    from bitplan.planner.evaluation.plans import evaluate_plan
    from bitplan.planner.pipelines.subject import subject_of

    plan = solve(memory="27%")
    subject = subject_of(pipe, Generation(2, 2.0))
    evaluator = build_evaluator(subject, list(plan.schemes), tiny.PROMPTS, seed=0, clip=str(clip_folder))
    measured = evaluate_plan(evaluator, plan, "int", "p", pairs=1).losses["nsr"][0]
    assert 1 / 3 < measured / plan.predictions["total"]["nsr"] < 3
