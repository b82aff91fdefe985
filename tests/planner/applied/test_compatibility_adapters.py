"""Adapters and attention of docs/compatibility.md work on a packed pipeline, or are refused, as the page says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

import bitplan
from bitplan.planner.errors import UserError
from bitplan.plans.kernels import KernelError
from bitplan.plans.layers.modules import QuantConv2d
from tests import attending, tiny
from tests.packed import paint, plan_for, same, stored

torch.set_num_threads(1)


def with_loras(pipe: Any, lora: Path) -> Any:
    for seed in range(2):
        pipe.load_lora_weights(lora, weight_name=f"{seed}.safetensors", adapter_name=f"a{seed}")
    return pipe


def test_load_lora_weights(packed: Any, lora: Path, picture: torch.Tensor) -> None:
    weights = stored(packed.unet)
    with_loras(packed, lora)
    assert isinstance(packed.unet.conv_in, QuantConv2d)
    adapted = paint(packed)
    assert (adapted - picture).abs().max() > 1e-3
    packed.unload_lora_weights()
    assert same(stored(packed.unet), weights) and torch.equal(paint(packed), picture)


def test_set_adapters(packed: Any, lora: Path, picture: torch.Tensor) -> None:
    with_loras(packed, lora)
    pictures = []
    for names, weights in ((["a0"], [1.0]), (["a1"], [1.0]), (["a0", "a1"], [0.3, 0.9]), (["a0", "a1"], [0.0, 0.0])):
        packed.set_adapters(names, weights)
        pictures.append(paint(packed))
    assert all((pictures[0] - other).abs().max() > 1e-3 for other in pictures[1:])
    torch.testing.assert_close(pictures[-1], picture)
    packed.disable_lora()
    assert torch.equal(paint(packed), picture)
    packed.enable_lora()
    packed.delete_adapters("a0")
    packed.set_adapters(["a1"])
    assert torch.equal(paint(packed), pictures[1])


def test_a_lora_acts_as_on_the_float_layer(lora: Path) -> None:
    """Beside 8-bit weights it moves the picture as it does beside float ones."""
    fine = plan_for(tiny.build_pipeline(), schemes=("w8a16",))
    packed, plain = bitplan.apply(tiny.build_pipeline(), fine), tiny.build_pipeline()
    moved = [(paint(with_loras(pipe, lora)), pipe.unload_lora_weights(), paint(pipe)) for pipe in (packed, plain)]
    deltas = [after - before for after, _, before in moved]
    assert deltas[1].abs().max() > 1e-2
    torch.testing.assert_close(*deltas, atol=0.1 * float(deltas[1].abs().max()), rtol=0)


def test_save_pretrained_with_a_lora(packed: Any, lora: Path, tmp_path: Path) -> None:
    with_loras(packed, lora)
    with pytest.raises(UserError, match="unload_lora_weights first"):
        packed.save_pretrained(tmp_path)


def test_fuse_lora(packed: Any, lora: Path) -> None:
    adapted = paint(with_loras(packed, lora))
    with pytest.raises(UserError, match="LoRA cannot be fused"):
        packed.fuse_lora()
    assert torch.equal(paint(packed), adapted)
    layer = packed.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q
    with pytest.raises(KernelError, match="LoRA cannot be fused"):
        layer.merge()


@pytest.fixture
def attention() -> attending.Attending:
    """Packed in part."""
    net = attending.build()
    bitplan.apply(attending.made(net), plan_for(SimpleNamespace(net=net), ["net"], ("w8a8", "w4a8", "keep")))
    return net


@torch.no_grad()
def test_multihead_attention(attention: attending.Attending, tmp_path: Path) -> None:
    attention.save_pretrained(tmp_path)
    again = attending.Attending.from_pretrained(tmp_path)
    assert torch.equal(again(*attending.inputs()), attention(*attending.inputs()))
    assert {"plain.k_proj.codes", "plain.q_proj.weight"} < set(again.state_dict())


def test_a_lora_on_multihead_attention(attention: attending.Attending) -> None:
    out = attention(*attending.inputs())
    with pytest.raises(ValueError, match="Only same embed"):
        inject_adapter_in_model(LoraConfig(target_modules=["plain"]), attention)
    inject_adapter_in_model(LoraConfig(target_modules=["plain.k_proj"], init_lora_weights=False), attention)
    assert not torch.allclose(attention(*attending.inputs()), out)


def test_gradients(packed: Any, lora: Path) -> None:
    with_loras(packed, lora)
    packed.unet.train()
    # the stride of a batch of one is of no meaning, and yet decides how torch sums in a GroupNorm
    inputs = torch.randn(2, 4, 8, 8), 5, torch.randn(2, 7, tiny.WIDTH)
    out = packed.unet(*inputs).sample  # outside of no_grad nothing is refused yet
    with torch.no_grad():
        assert torch.equal(packed.unet(*inputs).sample, out)
    with pytest.raises(KernelError, match="a packed layer has no gradient"):
        out.sum().backward()
