"""What happens to a pipeline between `bitplan.apply` and `bitplan.restore`, and before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline
from peft import LoraConfig
from torch import nn
from torch.nn.utils import parametrizations

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.layers import architecture_fingerprint
from bitplan.planner.graph.trace import survey
from bitplan.plans.layers.modules import is_packed
from bitplan.plans.layers.opening import opened
from bitplan.plans.layers.swap import SwapError
from bitplan.plans.plan import Plan, PlanError
from tests import attending, tiny
from tests.packed import paint, plan_for

torch.set_num_threads(1)
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
LORA = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k", "conv1"])


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for(tiny.build_pipeline())


@pytest.fixture
def applied(plan: Plan) -> Any:
    return bitplan.apply(tiny.build_pipeline(), plan)


def packed_in(pipe: Any) -> int:
    return sum(is_packed(module) for module in pipe.unet.modules())


def with_lora(pipe: Any) -> Any:
    torch.manual_seed(3)
    pipe.unet.add_adapter(LORA)
    return pipe


def test_attributes_of_a_config_stay(plan: Plan) -> None:
    """IP-Adapters set them, and pipelines read them."""
    pipe = tiny.build_pipeline()
    pipe.unet.config.encoder_hid_dim_type = "ip_image_proj"
    bitplan.apply(pipe, plan)
    assert pipe.unet.config.encoder_hid_dim_type == "ip_image_proj" and "quantization_config" in pipe.unet.config
    pipe.unet.config.scaling_factor = 0.5
    bitplan.restore(pipe)
    assert (pipe.unet.config.encoder_hid_dim_type, pipe.unet.config.scaling_factor) == ("ip_image_proj", 0.5)
    assert "quantization_config" not in pipe.unet.config and not hasattr(pipe.unet.config, "quantization_config")


def test_restore_keeps_a_lora_that_was_loaded_since(applied: Any) -> None:
    with_lora(applied)
    expected = with_lora(tiny.build_pipeline())
    assert torch.equal(paint(bitplan.restore(applied)), paint(expected)) and not packed_in(applied)
    applied.unet.delete_adapters("default")
    assert torch.equal(paint(applied), paint(tiny.build_pipeline()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_restore_after_a_cast(applied: Any, dtype: torch.dtype) -> None:
    bitplan.restore(applied.to(dtype))
    assert {tensor.dtype for tensor in applied.unet.parameters()} == {dtype}
    assert torch.equal(paint(applied), paint(tiny.build_pipeline().to(dtype)))


def test_restore_of_attentions_after_a_cast() -> None:
    model = attending.build()
    subject, parts = attending.made(model), {"net": model}
    names = ["net.plain.q_proj", "net.cross.k_proj", "net.out"]
    with opened(parts):
        graph = survey(parts, names)
        told = {"name": "net", "fingerprint": fingerprint(parts, graph), "components": ["net"]}
    plan = Plan(told | {"architecture": architecture_fingerprint(graph)}, dict.fromkeys(names, "w8a16"))
    bitplan.apply(subject, plan)
    model.to(torch.float64).requires_grad_(False)
    bitplan.restore(subject)
    assert not any(tensor.requires_grad for tensor in model.parameters())
    expected = attending.build().to(torch.float64)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in expected.state_dict().items())


def test_restore_takes_what_was_trained_since(applied: Any) -> None:
    with torch.no_grad():
        applied.unet.conv_out.bias.add_(1)
    expected = tiny.build_pipeline().unet.conv_out.bias + 1
    assert torch.equal(bitplan.restore(applied).unet.conv_out.bias, expected)


def test_restore_leaves_an_exchanged_component_alone(applied: Any, tmp_path: Path) -> None:
    applied.save_pretrained(tmp_path / "packed")
    picture, unet = paint(applied), applied.unet
    applied.unet = DiffusionPipeline.from_pretrained(tmp_path / "packed").unet  # packed by another pipeline
    with pytest.raises(UserError, match="its float weights were never here"):
        bitplan.restore(applied)
    applied.save_pretrained(tmp_path / "again")
    assert torch.equal(paint(DiffusionPipeline.from_pretrained(tmp_path / "again")), picture)
    applied.unet = unet
    assert torch.equal(paint(bitplan.restore(applied)), paint(tiny.build_pipeline()))


def test_restore_leaves_an_exchanged_layer_alone(applied: Any) -> None:
    wider = applied.unet.conv_in = nn.Conv2d(4, 32, 3, padding=1)
    bitplan.restore(applied)
    assert applied.unet.conv_in is wider and not packed_in(applied)


def test_pipelines_that_share_components_share_the_plan(plan: Plan) -> None:
    pipe = tiny.build_pipeline()
    other = StableDiffusionImg2ImgPipeline.from_pipe(bitplan.apply(pipe, plan))
    with pytest.raises(UserError, match=r"applied already; call bitplan\.restore"):
        bitplan.apply(other, plan)
    del pipe
    bitplan.restore(other)
    assert not packed_in(other)
    with pytest.raises(UserError, match="there is nothing to restore"):
        bitplan.restore(other)


def test_hooks_go_along(plan: Plan) -> None:
    pipe, calls = tiny.build_pipeline(), []
    layer = pipe.unet.get_submodule(LAYER)
    first = layer.register_forward_hook(lambda *_: calls.append("first"))
    layer.register_forward_pre_hook(lambda *_, **__: calls.append("before"), with_kwargs=True)
    bitplan.apply(pipe, plan)
    pipe.unet.get_submodule(LAYER).register_forward_hook(lambda *_: calls.append("second"))
    paint(pipe)
    assert calls[:3] == ["before", "first", "second"]
    bitplan.restore(pipe)
    first.remove()
    calls.clear()
    paint(pipe)
    assert calls[:2] == ["before", "second"] and "first" not in calls


def test_attributes_of_layers_go_along(plan: Plan) -> None:
    """Also those that are set, changed or deleted while the plan is applied."""
    pipe = tiny.build_pipeline()
    layer = pipe.unet.get_submodule(LAYER)
    layer.tag, layer.gone, layer.shape = 1, 2, "of the user"
    bitplan.apply(pipe, plan)
    packed = pipe.unet.get_submodule(LAYER)
    assert (packed.tag, packed.gone) == (1, 2) and packed.shape == layer.weight.shape
    packed.tag, packed.more = 3, 4
    del packed.gone
    bitplan.restore(pipe)
    assert pipe.unet.get_submodule(LAYER) is layer and layer(torch.zeros(1, 32)).shape == (1, 64)
    assert (layer.tag, layer.more, layer.shape) == (3, 4, "of the user") and not hasattr(layer, "gone")


def by_attribute(module: nn.Module, requires_grad: bool) -> None:
    for parameter in module.parameters():
        parameter.requires_grad = requires_grad


@pytest.mark.parametrize("ask", [nn.Module.requires_grad_, by_attribute])
def test_restore_follows_whether_gradients_were_asked_for(ask: Callable[[nn.Module, bool], Any], plan: Plan) -> None:
    pipe = tiny.build_pipeline()
    pipe.unet.requires_grad_(False)
    pipe.unet.conv_in.requires_grad_(True)
    before = {name for name, tensor in pipe.unet.named_parameters() if tensor.requires_grad}
    bitplan.restore(bitplan.apply(pipe, plan))
    assert {name for name, tensor in pipe.unet.named_parameters() if tensor.requires_grad} == before
    for asked in (True, False):
        ask(bitplan.apply(pipe, plan).unet, asked)
        bitplan.restore(pipe.to(torch.float64).to(torch.float32))
        assert {tensor.requires_grad for tensor in pipe.unet.parameters()} == {asked}


def hooked_state(layer: Any) -> None:
    layer.register_state_dict_post_hook(lambda *_: None)


def replaced_forward(layer: Any) -> None:
    """As LoRA scripts do it."""
    layer.forward = partial(type(layer).forward, layer)


class Foreign(nn.Parameter):
    """A weight as another quantizer stores it."""


def foreign_weight(layer: Any) -> None:
    layer.weight = Foreign(layer.weight.data)


ATTACHED: dict[Callable[[Any], Any], str] = {
    replaced_forward: "has a forward of its own",
    hooked_state: "has hooks on its state dict",
    parametrizations.weight_norm: "its weight is computed anew at each call",
    foreign_weight: "its weight is a Foreign, as another library stores it",
    lambda layer: layer.register_buffer("steps", torch.zeros(1)): "contains the tensor steps beside",
    lambda layer: layer.add_module("more", nn.Identity()): "contains the module more",
}


@pytest.mark.parametrize("attach", ATTACHED)
def test_what_would_be_lost_is_refused(attach: Callable[[Any], Any], plan: Plan) -> None:
    pipe = tiny.build_pipeline()
    attach(pipe.unet.get_submodule(LAYER))
    before = paint(pipe)
    with pytest.raises(PlanError, match=f"^unet.{LAYER} .*{ATTACHED[attach]}.*; apply the plan"):
        bitplan.apply(pipe, plan)
    assert not packed_in(pipe) and torch.equal(paint(pipe), before)


@pytest.mark.parametrize("attach", ["forward", "group offloading", "sequential offloading"])
def test_what_restore_would_lose_is_refused(attach: str, applied: Any) -> None:
    if attach == "forward":
        replaced_forward(applied.unet.get_submodule(LAYER))
    elif attach == "group offloading":
        applied.unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    else:
        from accelerate import cpu_offload

        cpu_offload(applied.unet, torch.device("cpu"))
    count = packed_in(applied)
    with pytest.raises((UserError, SwapError), match="first"):
        bitplan.restore(applied)
    assert packed_in(applied) == count
