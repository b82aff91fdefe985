"""Pipelines in 16 bits: the losses are those of float32, and a plan is run in the type it was made in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

import bitplan
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.pipelines.weights import Weights
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.responses import probed
from bitplan.plans.plan import PlanError, dtype_of, load_plan
from bitplan.sensitivity.table import MeasurementError
from tests import tiny

OPTIONS: dict[str, Any] = tiny.SETTINGS | {"schemes": ("w8a8", "w4g64ma8", "w2ma8"), "checks": None}


def profiled(folder: Path, clip: Path, out: Path, **options: Any) -> Path:
    return bitplan.profile(str(folder), out, clip=str(clip), **(OPTIONS | options))


@pytest.fixture(scope="module")
def halved(tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("halved") / "t.profile"
    return profiled(tiny_folder, clip_folder, out, dtype="bfloat16")


@pytest.fixture(scope="module")
def plan(halved: Path) -> Path:
    out = halved.with_name("p.plan.yaml")
    bitplan.solve(halved, out, memory="40%")
    return out


def losses(path: Path, metric: str) -> dict[tuple[str, str], float]:
    with open_profile(path) as store:
        return {(m.layer, m.scheme): m.mean for m in store.measurements() if m.metric == metric}


@pytest.mark.parametrize("metric", ["nsr", "dssim"])
def test_losses_in_16_bits_are_those_in_32(
    metric: str, halved: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    exact = losses(profiled(tiny_folder, clip_folder, tmp_path / "t.profile", checks=0), metric)
    ours = losses(halved, metric)
    assert ours.keys() == exact.keys()
    pairs = sorted(exact)
    assert spearmanr([ours[p] for p in pairs], [exact[p] for p in pairs]).statistic > 0.9


def test_nothing_is_measured_by_a_run_in_16_bits(halved: Path) -> None:
    with open_profile(halved) as store:
        assert {m.source for m in store.measurements()} == {"probes"}
        assert probed(store).prompts == len(tiny.PROMPTS)
        assert store.header()["model"]["dtype"] == "bfloat16"


def test_what_no_probe_reaches_is_refused_in_16_bits(
    tiny_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of positions, which is looked up once for all prompts, were it not given to each."""
    monkeypatch.setattr("bitplan.sensitivity.probes.estimate.single_layers", lambda *_: frozenset())
    both: Any = {"components": ("unet", "text_encoder"), "schemes": ("w8a16",)}
    with pytest.raises(MeasurementError, match="no probe reaches.*position_embedding.*--dtype float32"):
        profiled(tiny_folder, clip_folder, tmp_path / "t.profile", dtype="bfloat16", **both)


def test_a_plan_is_run_in_the_type_it_was_made_in(
    plan: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(name: str, weights: Weights, quantization: Any = None) -> Any:
        loaded.append(weights.dtype)
        return load_pipeline(name, weights, quantization)

    monkeypatch.setattr("bitplan.planner.applied.pipeline.load_pipeline", load)
    for kernels in ("int", "fake"):
        bitplan.paint(plan, str(tiny_folder), ["a cat"], tmp_path / "a.png", steps=2, kernels=kernels)
    assert loaded == ["bfloat16", "bfloat16"]


def test_what_is_packed_while_loading_is_what_is_packed_then(plan: Path, tiny_folder: Path) -> None:
    """The files are in float32: both round them to 16 bits first, or the plan's fingerprint would not be theirs."""
    applied = bitplan.apply(load_pipeline(str(tiny_folder), Weights("bfloat16")), plan).unet.state_dict()
    loaded = load_pipeline(str(tiny_folder), Weights("bfloat16"), bitplan.config(plan)).unet.state_dict()
    assert loaded.keys() == applied.keys()
    assert all(torch.equal(tensor, applied[name]) for name, tensor in loaded.items())


def test_a_plan_made_in_16_bits_fits_the_pipeline_in_16_bits(plan: Path, tiny_folder: Path) -> None:
    pipe = bitplan.apply(load_pipeline(str(tiny_folder), Weights("bfloat16")), plan)
    images = pipe(["a cat"], num_inference_steps=2, output_type="pt").images
    assert images.dtype == torch.bfloat16
    assert torch.isfinite(images).all()


def test_plans_of_two_types_are_not_mixed(plan: Path) -> None:
    one = load_plan(plan)
    other = replace(one, model={key: value for key, value in one.model.items() if key != "dtype"})
    assert (dtype_of([one]), dtype_of([other]), dtype_of([])) == ("bfloat16", "float32", "float32")
    with pytest.raises(PlanError, match="bfloat16 and float32"):
        dtype_of([one, other])
