"""The graph of a U-Net of diffusers: layers, multiply-adds, groups that read one input, and flow."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bitplan.planner.graph.layers import (
    GraphError,
    total_macs,
    total_parameters,
)
from bitplan.planner.graph.trace import find_layers, trace
from bitplan.plans.layers.addresses import module_at

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12, attention_head_dim=4,
    ).eval()  # fmt: skip


def denoise(unet, steps: int):
    def use() -> None:
        noisy, text = torch.ones(2, 4, 8, 8), torch.ones(2, 5, 12)
        with torch.no_grad():
            for step in range(steps):
                noisy = noisy - unet(noisy, torch.tensor(step), encoder_hidden_states=text).sample

    return use


def test_unet_layers_and_macs(unet):
    graph = trace({"unet": unet}, denoise(unet, 2))
    assert set(graph.by_address) == set(find_layers({"unet": unet}))
    assert {layer.call_count for layer in graph.layers} == {2}
    with FlopCounterMode(display=False) as counter:
        denoise(unet, 2)()
    counts = counter.get_flop_counts()["Global"]
    aten = torch.ops.aten
    assert 2 * total_macs(graph) == sum(counts.get(op, 0) for op in (aten.addmm, aten.mm, aten.convolution))
    named = {id(p) for name in graph.by_address for p in module_at({"unet": unet}, name).parameters()}
    assert total_parameters(graph) == sum(p.numel() for p in unet.parameters() if id(p) in named)


def test_unet_groups(unet):
    groups = {frozenset(group) for group in trace({"unet": unet}, denoise(unet, 2)).shared_inputs}
    blocks = [name for name, _ in unet.named_modules() if name.endswith("transformer_blocks.0")]
    assert len(blocks) == 4  # one down, one in the middle, two up
    own = {frozenset(f"unet.{block}.attn1.to_{x}" for x in "qkv") for block in blocks}
    cross = frozenset(f"unet.{block}.attn2.to_{x}" for block in blocks for x in "kv")
    assert groups == own | {cross}


def test_unet_flow(unet):
    flow = trace({"unet": unet}, denoise(unet, 1)).flow
    block = "unet.down_blocks.0.attentions.0"
    inner = f"{block}.transformer_blocks.0"
    into = {x: set(flow.predecessors(f"{inner}.{x}")) for x in ("attn1.to_q", "attn1.to_out.0", "attn2.to_k")}
    assert into["attn1.to_q"] == {f"{block}.proj_in"}
    assert into["attn1.to_out.0"] == {f"{inner}.attn1.to_{x}" for x in "qkv"}
    assert into["attn2.to_k"] == set()
    resnet = "unet.down_blocks.0.resnets.0"
    assert set(flow.predecessors(f"{resnet}.conv1")) == {"unet.conv_in"}
    assert set(flow.predecessors(f"{resnet}.conv2")) == {f"{resnet}.conv1", f"{resnet}.time_emb_proj"}
    assert set(flow.predecessors("unet.time_embedding.linear_1")) == set()
    assert not set(flow.successors("unet.conv_out"))
    assert all(prod(layer.weight) > 0 for layer in dict(flow.nodes(data="layer")).values())


class _Functional(nn.Module):
    """Uses the weight of its layer without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.inner[0].weight)


def test_weights_that_are_used_outside_calls_are_not_said_to_be_unused() -> None:
    model = _Functional()
    with pytest.raises(GraphError, match="uses the weights of 1 of the 2 layers of net outside their calls"):
        trace({"net": model}, lambda: model(torch.zeros(1, 4)))
    with pytest.raises(GraphError, match="the run called none of the 2 layers of net; name components"):
        trace({"net": model}, lambda: None)
