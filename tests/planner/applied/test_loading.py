"""Packed pipelines, loaded from float files and from their own: same bits, same refusals, one weight at a time."""

from __future__ import annotations

import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

import bitplan
from bitplan.planner.applied import register
from bitplan.planner.applied.checkpoint import Checkpoint, open_checkpoint
from bitplan.planner.applied.pipeline import load_applied
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import GraphError
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.verbs.use import paint as workflow__paint
from bitplan.plans.formats.base import FormatError
from bitplan.plans.plan import Plan, PlanError, save_plan
from tests import tiny
from tests.packed import paint, plan_for, same, stored
from tests.planner.applied.folders import WEIGHTS, load, rewrite

torch.set_num_threads(1)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A float pipeline that may be spoilt."""
    import shutil

    return Path(shutil.copytree(tiny_folder, tmp_path / "float"))


@pytest.mark.parametrize("layout", ["one file", "shards", "pickled", "half"])
def test_however_the_float_weights_are_stored(tmp_path: Path, plan: Plan, applied: Any, layout: str) -> None:
    pipe = tiny.build_pipeline()
    if layout == "half":
        pipe.unet.half()
        plan, applied = plan_for(pipe), None
    pipe.save_pretrained(tmp_path)
    if layout in ("shards", "pickled"):
        (tmp_path / "unet" / WEIGHTS).unlink()
        options = {"max_shard_size": "200KB"} if layout == "shards" else {"safe_serialization": False}
        pipe.unet.save_pretrained(tmp_path / "unet", **options)
    reference = applied or bitplan.apply(load_pipeline(str(tmp_path)), plan)
    made = load(tmp_path, plan)
    assert same(stored(made.unet), stored(reference.unet)) and torch.equal(paint(made), paint(reference))
    assert {key: value.dtype for key, value in made.unet.state_dict().items()} == {
        key: value.dtype for key, value in reference.unet.state_dict().items()
    }


def test_old_names_of_attention_layers(tmp_path: Path) -> None:
    """As checkpoints of before diffusers 0.18 have them."""
    pipe = tiny.build_pipeline()
    pipe.vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), norm_num_groups=4, sample_size=tiny.SIDE,
    )  # fmt: skip
    plan = plan_for(pipe, ("unet", "vae"))
    pipe.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "vae" / WEIGHTS)
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in tensors.items():
        for name, before in new.items():
            key = key.replace(f"attentions.0.{name}.", f"attentions.0.{before}.")
        old[key] = value
    assert old.keys() != tensors.keys()
    save_file(old, tmp_path / "vae" / WEIGHTS)
    made, reference = load(tmp_path, plan), bitplan.apply(load_pipeline(str(tmp_path)), plan)
    assert same(stored(made.vae), stored(reference.vae)) and torch.equal(paint(made), paint(reference))


def test_one_float_weight_at_a_time(tiny_folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    read = Checkpoint.read

    def watched(self: Checkpoint, key: str) -> torch.Tensor:
        assert not any(ref() is not None for ref in seen)
        tensor = read(self, key)
        seen.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(Checkpoint, "read", watched)
    pipe = load(tiny_folder, plan)
    packed = sum(text != "keep" for text in plan.schemes.values())
    assert len(seen) > 2 * packed and not any(ref() is not None for ref in seen)
    assert (
        sum(t.nbytes for t in pipe.unet.state_dict().values()) < 0.4 * (tiny_folder / "unet" / WEIGHTS).stat().st_size
    )


def test_other_weights_are_refused_before_any_is_quantized(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny.save_pipeline(tmp_path, seed=1)
    quantized: list[int] = []
    monkeypatch.setattr("bitplan.planner.applied.diffusers_quantizer.stored_tensors", lambda *_: quantized.append(1))
    with pytest.raises(PlanError, match="fingerprint"):
        load(other, plan)
    assert not quantized


def test_other_weights_are_allowed_where_asked(tmp_path: Path, plan: Plan) -> None:
    other = tiny.save_pipeline(tmp_path, seed=1)
    reference = bitplan.apply(load_pipeline(str(other)), plan, allow_mismatch=True)
    assert same(stored(load(other, plan, allow_mismatch=True).unet), stored(reference.unet))


@pytest.mark.parametrize("key", ["conv_in.bias", "mid.weight"])
def test_one_changed_number_is_noticed(folder: Path, plan: Plan, key: str) -> None:
    key = (
        key if key == "conv_in.bias" else next(k.removeprefix("unet.") for k in plan.schemes if "to_q" in k) + ".weight"
    )
    rewrite(folder, lambda tensors: tensors | {key: tensors[key].nextafter(torch.tensor(9.0))})
    with pytest.raises(PlanError, match="fingerprint"):
        load(folder, plan)


def test_numbers_that_are_none(folder: Path, plan: Plan) -> None:
    rewrite(folder, lambda tensors: tensors | {"conv_in.bias": torch.full((32,), torch.nan)})
    with pytest.raises(GraphError, match="conv_in.bias.*sound weights"):
        load(folder, plan, allow_mismatch=True)


def test_a_plan_for_other_layers(folder: Path, plan: Plan) -> None:
    more = replace(plan, schemes={**plan.schemes, "unet.conv_middle": "w8a8"})
    with pytest.raises(PlanError, match="did you mean"):
        load(folder, more)
    fewer = replace(plan, schemes=dict(list(plan.schemes.items())[1:]))
    for allowed in (False, True):
        with pytest.raises(PlanError, match="not those it was made for"):
            load(folder, fewer, allow_mismatch=allowed)


def test_a_weight_that_is_missing(folder: Path, plan: Plan) -> None:
    rewrite(folder, lambda tensors: {key: value for key, value in tensors.items() if key != "conv_in.weight"})
    with pytest.raises(UserError, match=r"no conv_in.weight"):
        load(folder, plan, allow_mismatch=True)


def test_layers_that_share_a_weight() -> None:
    for share in (
        lambda unet: setattr(unet.up_blocks[0].resnets[1], "conv2", unet.up_blocks[0].resnets[0].conv2),
        lambda unet: setattr(unet.conv_out, "bias", None) or setattr(unet.conv_in, "weight", unet.conv_out.weight),
    ):
        pipe = tiny.build_pipeline()
        share(pipe.unet)
        expected = bitplan.config(plan_for(pipe), "unet").expected
        with pytest.raises(UserError, match="share one weight.*bitplan.apply"):
            expected.meet("unet", pipe.unet, Checkpoint({}, torch.float32))


def test_several_components(tmp_path: Path) -> None:
    pipe = tiny.build_pipeline()
    both = plan_for(pipe, ("unet", "vae"))
    pipe.save_pretrained(tmp_path)
    made, reference = load(tmp_path, both), bitplan.apply(load_pipeline(str(tmp_path)), both)
    assert same(stored(made.vae), stored(reference.vae)) and torch.equal(paint(made), paint(reference))
    other = tiny.build_pipeline(seed=1)
    other.vae.save_pretrained(tmp_path / "vae")
    config = bitplan.config(both)
    for _ in range(2):  # and again: nothing is left of the first time
        with pytest.raises(PlanError, match="fingerprint"):
            DiffusionPipeline.from_pretrained(tmp_path, quantization_config=config)
    with pytest.raises(UserError, match="unet alone cannot be checked"):
        bitplan.config(both, "unet")
    alone = bitplan.config(both, "unet", allow_mismatch=True)
    unet = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet", quantization_config=alone)
    assert same(stored(unet), stored(made.unet))


def test_static_schemes_need_their_ranges(tiny_folder: Path, plan: Plan) -> None:
    with pytest.raises(ValueError, match="unet.*calibrated range"):
        load(tiny_folder, replace(plan, calibration={}))


def test_paint_loads_packed(
    tiny_folder: Path, plan: Plan, applied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(plan, tmp_path / "p.plan.yaml")
    monkeypatch.setattr(
        "bitplan.planner.applied.pipeline.bind_and_swap", lambda *_: pytest.fail("the float pipeline was loaded")
    )
    workflow__paint(tmp_path / "p.plan.yaml", str(tiny_folder), ["a cat"], tmp_path / "x.png", steps=2)
    pipe = load_applied(str(tiny_folder), plan, "int", False)
    assert torch.equal(paint(pipe), paint(applied))


def test_paint_with_a_plan_of_its_own(applied: Any, plan: Plan, tmp_path: Path) -> None:
    applied.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="saved with a plan of its own"):
        load_applied(str(tmp_path), plan, "int", False)


def test_weights_that_cannot_be_stored_name_their_layer(
    folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise FormatError("of no use")

    monkeypatch.setattr("bitplan.planner.applied.diffusers_quantizer.stored_tensors", refuse)
    with pytest.raises(FormatError, match=r"^unet\..*: of no use"):
        load(folder, plan)


def test_layers_that_a_class_keeps_in_float32(tiny_folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ["time_embedding"]
    monkeypatch.setattr(UNet2DConditionModel, "_keep_in_fp32_modules", kept)
    unet = UNet2DConditionModel.from_pretrained(
        tiny_folder, subfolder="unet", torch_dtype=torch.bfloat16, quantization_config=bitplan.config(plan, "unet")
    )
    assert unet.time_embedding.linear_1.weight.dtype == unet.time_embedding.linear_1.bias.dtype == torch.float32
    assert unet.conv_in.weight.dtype == torch.bfloat16 and kept == ["time_embedding"]


def test_registering_is_idempotent_and_other_methods_stay() -> None:
    from diffusers.quantizers import auto

    before = dict(auto.AUTO_QUANTIZER_MAPPING)
    register()
    assert before == auto.AUTO_QUANTIZER_MAPPING and {"bitplan", "torchao"} <= set(before)
    assert "transformers.quantizers.auto" in sys.modules


@pytest.mark.parametrize("first", ["transformers", "planner"])
def test_registered_in_any_order(first: str) -> None:
    """Diffusers first is a test of test_compatibility.py."""
    code = f"""
import sys
if {first!r} == "transformers":
    import transformers.quantizers.auto
import bitplan
assert "diffusers" not in sys.modules and ("torch" in sys.modules) == ({first!r} == "transformers")
from transformers.quantizers import auto
assert "bitplan" in auto.AUTO_QUANTIZER_MAPPING and "diffusers" not in sys.modules
from diffusers.quantizers import auto
assert "bitplan" in auto.AUTO_QUANTIZER_MAPPING
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_that_lacks_a_key(tiny_folder: Path) -> None:
    checkpoint = open_checkpoint([tiny_folder / "unet" / WEIGHTS], tiny.build_unet(), "float32")
    assert checkpoint.read("conv_in.bias").shape == (32,)
    with pytest.raises(UserError, match="no conv_middle.weight"):
        checkpoint.read("conv_middle.weight")


def test_the_embedded_pipeline(tmp_path: Path) -> None:
    plan = plan_for(load_pipeline("scenes"), schemes=("w4g64ma8", "w8a8", "w8a16"))
    applied = bitplan.apply(load_pipeline("scenes"), plan)
    applied.save_pretrained(tmp_path)
    expected = paint(applied)
    for made in (load_applied("scenes", plan, "int", False), DiffusionPipeline.from_pretrained(tmp_path)):
        assert torch.equal(paint(made), expected)
        made.save_pretrained(tmp_path / "again")
        assert torch.equal(paint(DiffusionPipeline.from_pretrained(tmp_path / "again")), expected)
