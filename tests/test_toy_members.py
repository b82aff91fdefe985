"""A toy weight format, transform, kernel and metric, registered from outside, go through everything a member does."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.profiles.fitted import read_parameters
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.kernels import KERNELS
from bitplan.plans.layers.modules import weight_bytes
from bitplan.plans.plan import Plan, PlanError, load_plan
from bitplan.plans.scheme import SchemeError, parse_scheme
from bitplan.sensitivity.metrics import METRICS
from tests import tiny, toys
from tests.packed import paint

SCHEMES = ("w8a8", "terna16", "terna16+even", "w8a8+even")
SETTINGS = tiny.SETTINGS | {"schemes": SCHEMES, "probes": 1, "checks": 2}
BLOCK = "unet.down_blocks.1.attentions.0.transformer_blocks.0"
SHARING = [f"{BLOCK}.attn1.{name}" for name in ("to_q", "to_k", "to_v")]
ALONE = f"{BLOCK}.ff.net.2"


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    with toys.registered():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_pipeline(tmp_path_factory.mktemp("toys") / "pipeline")


@pytest.fixture(scope="module")
def profile(folder: Path) -> Path:
    clip = tiny.save_clip(folder.parent / "clip")
    return bitplan.profile(str(folder), folder.parent / "toys.profile", clip=str(clip), **SETTINGS)


def solve(profile: Path, scheme: str, **options: Any) -> tuple[Plan, Path]:
    out = profile.parent / f"{scheme}.plan.yaml"
    pins = dict.fromkeys(SHARING, scheme) | {ALONE: scheme}
    return bitplan.solve(profile, out, memory="60%", pins=pins, **options), out


@pytest.fixture(scope="module")
def real(profile: Path) -> tuple[Plan, Path]:
    return solve(profile, "terna16+even")


def module(pipe: Any, layer: str) -> Any:
    return pipe.unet.get_submodule(layer.removeprefix("unet."))


def test_the_profile_measures_and_prices_them(profile: Path) -> None:
    with open_profile(profile) as store:
        costs = {(cost.layer, cost.scheme): cost for cost in store.costs()}
        losses = {(m.layer, m.scheme): m.mean for m in store.measurements() if m.metric == "toy_power"}
        parameters = read_parameters(store)
    ternary, even = costs[ALONE, "terna16"], costs[ALONE, "terna16+even"]
    assert ternary.kernel == even.kernel == "toy_product" and not even.simulated
    scale = parameters[ALONE, "+even"]["scale"]
    assert even.bytes == ternary.bytes + scale.nbytes and scale.nbytes > 0
    assert costs[ALONE, "w8a8+even"].simulated, "no kernel for integers takes the transform"
    assert losses[ALONE, "w8a8"] < losses[ALONE, "terna16"] != losses[ALONE, "terna16+even"] > 0
    assert {(SHARING[0], "+even"), (ALONE, "+even")} <= set(parameters)
    assert not {(layer, "+even") for layer in SHARING[1:]} & set(parameters), "layers that read one input share it"


def test_the_plan_carries_what_was_fitted_once_for_a_group(profile: Path, real: tuple[Plan, Path]) -> None:
    plan, out = real
    assert load_plan(out) == plan and plan.version == 2
    [group] = plan.groups
    assert group == {"members": SHARING, "transforms": ["+even"]}
    assert set(plan.parameters) == {(SHARING[0], "+even"), (ALONE, "+even")}
    with open_profile(profile) as store:
        assert all(
            (read_parameters(store)[key]["scale"] == held["scale"]).all() for key, held in plan.parameters.items()
        )
    bitplan.verify(out, profile)


def test_applied_really_and_simulated_saved_and_loaded(folder: Path, real: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, out = real
    pipe = load_pipeline(str(folder))
    before = paint(pipe)
    bitplan.apply(pipe, out)
    layers = [module(pipe, layer) for layer in (*SHARING, ALONE)]
    assert all(layer.kernel.name == "toy_product" for layer in layers)
    assert torch.equal(layers[0].even_scale, layers[1].even_scale) and "even_scale" in layers[0].state_dict()
    assert all(4 * weight_bytes(layer) < 5 * prod(layer.shape) for layer in layers), "a byte for a weight, and sizes"
    picture = paint(pipe)
    pipe.save_pretrained(tmp_path / "packed")
    again = DiffusionPipeline.from_pretrained(tmp_path / "packed")
    assert module(again, ALONE).kernel.name == "toy_product" and torch.equal(paint(again), picture)
    quantized = DiffusionPipeline.from_pretrained(folder, quantization_config=bitplan.config(plan))
    assert torch.equal(module(quantized, SHARING[1]).even_scale, layers[1].even_scale)
    assert torch.equal(paint(quantized), picture)
    bitplan.restore(pipe)
    assert torch.equal(paint(pipe), before) and not torch.equal(before, picture)
    bitplan.apply(pipe, plan, kernels="fake")
    for layer, name in zip(layers, (*SHARING, ALONE), strict=True):
        x, fake = torch.randn(2, 5, layer.in_features), module(pipe, name)
        assert fake.kernel.name == "reference"
        torch.testing.assert_close(fake(x), layer(x), rtol=1e-4, atol=1e-5)


def test_what_no_kernel_and_no_tool_takes(folder: Path, profile: Path, real: tuple[Plan, Path]) -> None:
    plan, out = solve(profile, "w8a8+even", kernels="fake")
    assert {*SHARING, ALONE} <= set(plan.simulated)
    pipe = load_pipeline(str(folder))
    with pytest.raises(ValueError, match=r"cpu_int8: takes transforms \+first, not \+even"):
        bitplan.apply(pipe, plan)
    bitplan.apply(pipe, plan, kernels="fake")
    assert module(pipe, ALONE).kernel.name == "reference"
    with pytest.raises(UserError, match=r"takes transforms none, not \+even"):
        bitplan.export(plan, "sdnq", out.with_suffix(".json"), model=profile)
    with pytest.raises(UserError, match="takes weights int, fp8, not tern"):
        bitplan.export(real[0], "sdnq", out.with_suffix(".json"), model=profile)


def test_the_report_shows_the_metric(folder: Path, real: tuple[Plan, Path], tmp_path: Path) -> None:
    bitplan.evaluate([real[1]], str(folder), tmp_path / "report", prompts=tiny.PROMPTS, steps=2, blocks=False,
                     clip=str(folder.parent / "clip"))  # fmt: skip
    assert "toy_power" in (tmp_path / "report" / "report.md").read_text()


def test_unregistered_they_are_unknown_again(real: tuple[Plan, Path]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for table, name in ((toys.formats.FORMATS, "ternary"), (toys.transforms.TRANSFORMS, "even")):
            patch.delitem(table, name)
        with pytest.raises(SchemeError, match="names no scheme"):
            parse_scheme("terna16+even")
        with pytest.raises(PlanError, match=r"'terna16\+even' names no scheme"):
            load_plan(real[1])
    assert {"toy_product", "toy_power"} <= {*KERNELS, *METRICS}
