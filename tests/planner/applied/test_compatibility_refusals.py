"""What cannot be done with a plan is refused by one line that is true, as docs/compatibility.md says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.layers import architecture_fingerprint
from bitplan.planner.graph.trace import survey
from bitplan.planner.pipelines.subject import Subject
from bitplan.plans.kernels import KernelError
from bitplan.plans.layers.modules import is_packed
from bitplan.plans.plan import Plan, PlanError
from tests import tiny
from tests.odd.parts import made, sampled
from tests.odd.patched import Blocks
from tests.packed import paint, plan_for

CPU = torch.device("cpu")


def test_a_plan_for_another_float_type(plan: Plan) -> None:
    pipe = tiny.build_pipeline().to(torch.bfloat16)
    with pytest.raises(PlanError) as caught:
        bitplan.apply(pipe, plan)
    assert str(caught.value) == (
        "the plan was made for tiny in float32, and the weights of this model are bfloat16, which rounds them to other "
        "values; load it with dtype=torch.float32, or, if other weights are meant, give allow_mismatch=True"
    )
    assert bitplan.apply(pipe, plan, allow_mismatch=True) is pipe


def test_a_fine_tune_is_told_as_before(plan: Plan) -> None:
    with pytest.raises(PlanError, match="with fingerprint .* for a fine-tune of the same architecture, give"):
        bitplan.apply(tiny.build_pipeline(seed=1), plan)


ADDED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "sequential offload": (lambda unet: cpu_offload(unet, CPU), r"AlignDevicesHook .* call remove_all_hooks\(\)"),
    "group offload": (lambda unet: unet.enable_group_offload(CPU, offload_type="leaf_level"), "apply the plan first"),
    "casting": (lambda unet: unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32), "load the model with"),
}


@pytest.mark.parametrize("added", ADDED)
def test_apply_after_weights_are_moved_or_cast(added: str, plan: Plan) -> None:
    pipe, (add, told) = tiny.build_pipeline(), ADDED[added]
    add(pipe.unet)
    with pytest.raises(UserError, match=rf"^unet\.conv_in has the hook [^\n]*{told}[^\n]*$"):
        bitplan.apply(pipe, plan)
    assert not any(map(is_packed, pipe.unet.modules()))


def test_load_textual_inversion() -> None:
    pipe = tiny.build_pipeline()
    both = plan_for(pipe, components=("unet", "text_encoder"))
    bitplan.apply(pipe, both)
    token = {"<toy>": torch.randn(pipe.text_encoder.config.hidden_size)}
    before = pipe.text_encoder.get_input_embeddings().weight.clone()
    with pytest.raises(KernelError, match="a packed embedding .* as textual inversion adds them; pin this layer to"):
        pipe.load_textual_inversion(token, token="<toy>")  # noqa: S106 - a word of prompts
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight, before)


def test_load_textual_inversion_where_the_embedding_is_kept(plan: Plan) -> None:
    pipe = bitplan.apply(tiny.build_pipeline(), plan)
    row = torch.randn(pipe.text_encoder.config.hidden_size)
    pipe.load_textual_inversion({"<toy>": row}, token="<toy>")  # noqa: S106 - a word of prompts
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[-1], row)


def test_a_plan_of_the_layers_that_fused_projections_replace(plan: Plan) -> None:
    pipe = tiny.build_pipeline()
    pipe.fuse_qkv_projections(vae=False)
    fused = paint(pipe)
    with pytest.raises(PlanError, match=r"^unet\..*\.attn1\.to_q is not called, .* fused into to_qkv; call unfuse"):
        bitplan.apply(pipe, plan)
    assert torch.equal(paint(pipe), fused)
    pipe.unfuse_qkv_projections(vae=False)
    assert torch.equal(paint(bitplan.apply(pipe, plan)), paint(bitplan.apply(tiny.build_pipeline(), plan)))


def test_a_lora_that_was_loaded_before_the_plan_is_named(plan: Plan) -> None:
    pipe = tiny.build_pipeline()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(PlanError, match=r"to_q cannot be replaced: a LoRA or another adapter is loaded on it; apply"):
        bitplan.apply(pipe, plan)


def blocks() -> Subject:
    return sampled(made(Blocks))


def test_bench_takes_a_subject_with_steps_of_its_own(tmp_path: Path) -> None:
    subject, layer = blocks(), "net.transformer_blocks.0.attn1.to_q"
    graph = survey(subject.modules, [layer])
    model = {"name": "net", "fingerprint": fingerprint(subject.modules, graph), "components": ["net"],
             "architecture": architecture_fingerprint(graph)}  # fmt: skip
    out = tmp_path / "b.json"
    bitplan.bench(Plan(model, {layer: "w8a16"}), f"{__name__}:blocks", out=out, pairs=1, against=["float32"])
    assert json.loads(out.read_text())["about"]["pipeline"] == f"{__name__}:blocks"
    assert json.loads(out.read_text())["about"]["steps"] is None
