"""Roles of the layers of the transformers of diffusers, traced in one call or in two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanVideoTransformer3DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    WanTransformer3DModel,
)
from torch import nn

from bitplan.planner.graph.trace import trace
from tests.planner.graph.sampling import check, sampled

torch.set_num_threads(1)
JOINT = {
    "*.time_text_embed.text_embedder.*": "condition",
    "*.time_text_embed.guidance_embedder.*": "condition",
    "*.context_embedder": "condition",
    "*.time_text_embed.*": "time",
    "*.norm*.linear": "time",
    "*.single_transformer_blocks.*.norm.linear": "time",
    "net.proj_out": "out",
    "*.attn.*": "self-attention",
    "*.single_transformer_blocks.*.proj_out": "self-attention",
    "*.single_transformer_blocks.*.proj_mlp": "feed-forward",
    "*.ff*.net.*": "feed-forward",
}
FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any], dict[str, str]]] = {
    "sd3": (
        lambda: SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16, pooled_projection_dim=10,
            pos_embed_max_size=8,
        ),
        (2, 4, 8, 8),
        {"encoder_hidden_states": torch.randn(2, 5, 12), "pooled_projections": torch.randn(2, 10)},
        {"net.pos_embed.proj": "in"} | JOINT,
    ),
    "flux": (
        lambda: FluxTransformer2DModel(
            in_channels=4, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=12, pooled_projection_dim=10, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
        ),
        (1, 16, 4),
        {"encoder_hidden_states": torch.randn(1, 5, 12), "pooled_projections": torch.randn(1, 10),
         "guidance": torch.ones(1), "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(5, 3)},
        {"net.x_embedder": "in"} | JOINT,
    ),
    "pixart": (
        lambda: PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
            cross_attention_dim=16, sample_size=8, patch_size=2, caption_channels=12,
        ),
        (2, 4, 8, 8),
        {"encoder_hidden_states": torch.randn(2, 5, 12), "encoder_attention_mask": torch.ones(2, 5)},
        {"net.pos_embed.proj": "in", "net.proj_out": "out", "net.adaln_single.*": "time",
         "net.caption_projection.*": "condition", "*.attn1.*": "self-attention", "*.attn2.*": "cross-attention",
         "*.ff.*": "feed-forward"},
    ),
    "dit": (
        lambda: DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
            patch_size=2, norm_num_groups=4, num_embeds_ada_norm=1000,
        ),
        (2, 4, 8, 8),
        {"class_labels": torch.tensor([1, 2])},
        {"net.pos_embed.proj": "in", "net.proj_out_2": "out", "net.proj_out_1": "time",
         "*.norm1.linear": "time", "*.norm1.emb.timestep_embedder.*": "time",
         "*.attn1.*": "self-attention", "*.ff.*": "feed-forward", "*.embedding_table": "condition"},
    ),
    "hunyuan": (  # the time is added to text that an attention pooled
        lambda: HunyuanDiT2DModel(
            sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, hidden_size=16,
            cross_attention_dim=8, cross_attention_dim_t5=8, pooled_projection_dim=4, text_len=4, text_len_t5=4,
            in_channels=4, activation_fn="gelu-approximate",
        ),
        (1, 4, 8, 8),
        {"encoder_hidden_states": torch.randn(1, 4, 8), "encoder_hidden_states_t5": torch.randn(1, 4, 8),
         "text_embedding_mask": torch.ones(1, 4), "text_embedding_mask_t5": torch.ones(1, 4),
         "image_meta_size": torch.randn(1, 6), "style": torch.zeros(1, dtype=torch.long),
         "image_rotary_emb": (torch.randn(16, 8), torch.randn(16, 8))},
        {"net.pos_embed.proj": "in", "net.proj_out": "out", "*.norm1.linear": "time", "net.norm_out.linear": "time",
         "*.timestep_embedder.*": "time", "*.extra_embedder.*": "condition", "net.text_embedder.*": "condition",
         "*.style_embedder": "condition", "*.pooler.*": "condition", "*.attn1.*": "self-attention",
         "*.attn2.*": "cross-attention", "*.ff.*": "feed-forward"},
    ),
    "lumina": (  # text attends to itself, without and pictures with the time, before they meet
        lambda: Lumina2Transformer2DModel(
            sample_size=8, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1, num_attention_heads=3,
            num_kv_heads=1, multiple_of=2, axes_dim_rope=(4, 2, 2), axes_lens=(32, 32, 32), cap_feat_dim=8,
        ),
        (1, 4, 8, 8),
        {"encoder_hidden_states": torch.randn(1, 5, 8), "encoder_attention_mask": torch.ones(1, 5, dtype=torch.bool)},
        {"net.x_embedder": "in", "net.norm_out.linear_2": "out", "*.caption_embedder.*": "condition",
         "net.context_refiner.*": "condition", "*.attn.*": "self-attention", "*.feed_forward.*": "feed-forward",
         "*": "time"},
    ),
    "sana": (  # linear attention, which has no softmax
        lambda: SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
            num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
            sample_size=8,
        ),
        (1, 4, 8, 8),
        {"encoder_hidden_states": torch.randn(1, 5, 8)},
        {"net.patch_embed.proj": "in", "net.proj_out": "out", "net.time_embed.*": "time",
         "net.caption_projection.*": "condition", "*.attn1.*": "self-attention", "*.attn2.*": "cross-attention",
         "*.ff.*": "convolution"},
    ),
    "hunyuan video": (  # text attends to itself and is told the time
        lambda: HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1, text_embed_dim=16,
            pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
        ),
        (1, 4, 1, 4, 4),
        {"encoder_hidden_states": torch.randn(1, 5, 16), "encoder_attention_mask": torch.ones(1, 5),
         "pooled_projections": torch.randn(1, 8), "guidance": torch.ones(1)},
        {"net.x_embedder.proj": "in", "*.refiner_blocks.*.norm_out.linear": "time",
         "*.token_refiner.*": "condition", "net.context_embedder.proj_in": "condition",
         "*.text_embedder.*": "condition", "*.context_embedder.time_text_embed.*": "time"} | JOINT,
    ),
    "wan": (
        lambda: WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16, freq_dim=16,
            ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        ),
        (1, 4, 2, 8, 8),
        {"encoder_hidden_states": torch.randn(1, 5, 16)},
        {"net.patch_embedding": "in", "net.proj_out": "out", "*.time_embedder.*": "time", "*.time_proj": "time",
         "*.text_embedder.*": "condition", "*.attn1.*": "self-attention", "*.attn2.*": "cross-attention",
         "*.ffn.*": "feed-forward"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("twice", [False, True], ids=["one call", "two calls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers(family: str, twice: bool) -> None:
    torch.manual_seed(0)
    make, shape, cond, expected = FAMILIES[family]
    net = make().eval()
    with torch.no_grad():
        graph = trace({"net": net}, sampled(net, shape, cond, twice))
    check(graph, expected)
    assert (graph.parts[0].calls, graph.parts[0].iterates) == (3 * (1 + twice), True)
    inputs = dict(graph.parts[0].inputs)
    assert inputs.pop("hidden_states") == "state" and inputs.pop("timestep") == "time"
    assert {name.partition(".")[0] for name in inputs} == set(cond) and set(inputs.values()) == {"condition"}
