"""Roles and iterating components, on models whose architecture is known: only here may layers have names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import (
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanVideoTransformer3DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    WanTransformer3DModel,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.utils._pytree import tree_map

from bitplan.planner.graph.components import iterating, only
from bitplan.planner.graph.layers import ROLES, GraphError, LayerGraph, architecture_fingerprint, from_json, to_json
from bitplan.planner.graph.trace import trace
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import generate, load_pipeline
from tests import tiny

torch.set_num_threads(1)
TIMES = (900, 500, 100)

UNET = {
    "unet.conv_in": "in",
    "unet.conv_out": "out",
    "unet.time_embedding.*": "time",
    "*.time_emb_proj": "time",
    "*.attn1.to_*": "self-attention",
    "*.attn2.to_*": "cross-attention",
    "*.attentions.*.ff.net.*": "feed-forward",
    "*": "convolution",
}
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


def check(graph: LayerGraph, expected: dict[str, str]) -> None:
    """expected: pattern of addresses -> role, the first that fits counts; each must fit something or be no layer."""
    wrong = {}
    for layer in graph.layers:
        role = next((role for pattern, role in expected.items() if fnmatch(layer.address, pattern)), None)
        if layer.role != role:
            wrong[layer.address] = f"{layer.role}, not {role}"
    assert not wrong


def _another(value: torch.Tensor) -> torch.Tensor:
    """Another condition, in the range of its kind: class 0, or ones."""
    return torch.zeros_like(value) if value.dtype == torch.long else torch.ones_like(value)


def sampled(net: nn.Module, shape: tuple[int, ...], cond: dict[str, Any], twice: bool = False, times: Any = TIMES):
    """A sampler of its own. twice: guidance by two calls a step, the second on another condition."""

    def call(x: torch.Tensor, t: int, cond: dict[str, Any]) -> torch.Tensor:
        time = torch.full((len(x),), float(t))
        return net(hidden_states=x, timestep=time, return_dict=False, **cond)[0][:, : x.shape[1]]

    def run() -> None:
        x, other = torch.randn(shape), {name: tree_map(_another, value) for name, value in cond.items()}
        for t in times:
            v = call(x, t, cond)
            x = x - 0.1 * (v + (call(x, t, other) - v if twice else 0))

    return run


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


def make_unet(**options: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12, attention_head_dim=4, **options,
    ).eval()  # fmt: skip


def denoised(unet: nn.Module, *texts: torch.Tensor, times: Any = TIMES, **options: Any) -> Callable[[], None]:
    """One call a text and step, the mean of which is the step's."""

    def run() -> None:
        x = torch.randn(1, 4, 8, 8)
        for t in times:
            parts = [unet(x, t, encoder_hidden_states=text, **options).sample for text in texts]
            x = x - 0.1 * sum(parts) / len(parts)

    return run


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
def test_unet(explicit: bool, mode: Any) -> None:
    unet, text = make_unet(), torch.randn(1, 5, 12)
    if explicit:
        unet.set_attn_processor(AttnProcessor())
    with mode():
        check(trace({"unet": unet}, denoised(unet, text, times=torch.tensor(TIMES))), UNET)


def test_attention_decomposed() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    unet, text = make_unet(), torch.randn(1, 5, 12)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        check(trace({"unet": unet}, denoised(unet, text)), UNET)


@pytest.mark.parametrize("times", [TIMES, torch.tensor(TIMES)], ids=["a number", "a tensor"])
def test_guidance_by_two_calls_a_step(times: Any) -> None:
    """The time given as a Python number has no flow, and is told by its values."""
    unet = make_unet()
    with torch.no_grad():
        graph = trace({"unet": unet}, denoised(unet, torch.randn(1, 5, 12), torch.zeros(1, 5, 12), times=times))
    check(graph, UNET)
    assert dict(graph.parts[0].inputs)["encoder_hidden_states"] == "condition"


@pytest.mark.parametrize("calls", [1, 2])
def test_one_step(calls: int) -> None:
    """Nothing iterates; the state is told by its shape, the time by being one number that no module made."""
    unet = make_unet()
    texts = (torch.randn(1, 5, 12), torch.zeros(1, 5, 12))[:calls]
    with torch.no_grad():
        graph = trace({"unet": unet}, denoised(unet, *texts, times=torch.tensor([500])))
    check(graph, UNET)
    assert not graph.parts[0].iterates and iterating(graph) == ("unet",)


def test_pooled_text_and_sizes_are_condition() -> None:
    unet = make_unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=34
    )
    extra = {"text_embeds": torch.randn(1, 10), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        graph = trace({"unet": unet}, denoised(unet, torch.randn(1, 5, 12), added_cond_kwargs=extra))
    check(graph, {"unet.add_embedding.*": "condition"} | UNET)
    assert dict(graph.parts[0].inputs)["added_cond_kwargs.time_ids"] == "condition"


def test_unconditional() -> None:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    ).eval()  # fmt: skip

    def run() -> None:
        x = torch.randn(2, 3, 8, 8)
        for t in TIMES:
            x = x - 0.1 * unet(x, t).sample

    with torch.no_grad():
        check(trace({"unet": unet}, run), {"*.to_*": "self-attention"} | UNET)


def test_controlnet() -> None:
    """It iterates, for it reads what the denoiser makes of its own residuals, and these are no second beginning."""
    from diffusers import ControlNetModel

    unet = make_unet()
    control = ControlNetModel.from_unet(unet).eval()
    text, picture = torch.randn(1, 5, 12), torch.randn(1, 3, 64, 64)

    def run() -> None:
        x = torch.randn(1, 4, 8, 8)
        for t in torch.tensor(TIMES):
            down, mid = control(x, t, encoder_hidden_states=text, controlnet_cond=picture, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            x = x - 0.1 * unet(x, t, encoder_hidden_states=text, **residuals).sample

    with torch.no_grad():
        graph = trace({"unet": unet, "control": control}, run)
    assert iterating(graph) == ("control", "unet")
    expected = {name.replace("unet.", "control."): role for name, role in UNET.items()}
    expected = {"control.controlnet_cond_embedding.*": "condition", "control.controlnet_*": "out"} | expected
    check(only(graph, ("control",)), expected)
    check(only(graph, ("unet",)), UNET)


PIPELINE = {
    "text_encoder.*.self_attn.*": "self-attention",
    "text_encoder.*.mlp.fc1": "feed-forward",
    "text_encoder.*.token_embedding": "in",
    "text_encoder.*.position_embedding": "other",
    "vae.post_quant_conv": "in",
    "vae.decoder.conv_out": "out",
} | UNET  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> LayerGraph:
    pipe = tiny.build_pipeline()
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    return trace(parts, lambda: generate(pipe, tiny.PROMPTS[:1], Generation(3, 2.0)))


def test_a_whole_pipeline(whole: LayerGraph) -> None:
    check(whole, {"text_encoder.encoder.layers.0.mlp.fc2": "out"} | PIPELINE)
    assert [(p.name, p.calls, p.iterates) for p in whole.parts] == [
        ("text_encoder", 2, False), ("unet", 3, True), ("vae", 0, False),
    ]  # fmt: skip
    assert iterating(whole) == ("unet",)


class Doubled(nn.Linear):
    """Runs otherwise than its class."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_why_modules_stay_unplanned_is_told_of_some_components() -> None:
    parts = {name: nn.Sequential(nn.Linear(3, 3), Doubled(3, 3)) for name in ("first", "second")}
    traced = trace(parts, lambda: parts["second"](parts["first"](torch.ones(1, 3))))
    cut = only(traced, ("second",))
    assert cut.unused == ("second.1",) and [name for name, _ in cut.reasons] == ["second.1"]
    assert cut.reasons[0] in traced.reasons and "forward" in cut.reasons[0][1]


@pytest.mark.parametrize("names", [("unet",), ("unet", "vae"), ("text_encoder", "vae"), ("vae",)])
def test_some_components_are_as_if_traced_alone(whole: LayerGraph, names: tuple[str, ...]) -> None:
    pipe = tiny.build_pipeline()
    parts = {name: getattr(pipe, name) for name in names}
    alone = trace(parts, lambda: generate(pipe, tiny.PROMPTS[:1], Generation(3, 2.0)))
    assert only(whole, names) == alone
    assert architecture_fingerprint(only(whole, names)) == architecture_fingerprint(alone)


def test_components_that_are_not_there(whole: LayerGraph) -> None:
    with pytest.raises(GraphError, match="no component transformer; it has text_encoder, unet, vae"):
        only(whole, ("unet", "transformer"))
    with pytest.raises(GraphError, match="trace the model again"):
        iterating(replace(whole, parts=()))


def test_some_components_keep_their_reasons(whole: LayerGraph) -> None:
    told = replace(whole, reasons=(("unet.odd", "it is odd"), ("vae.odd", "it is odder")))
    assert only(told, ("unet",)).reasons == (("unet.odd", "it is odd"),)


def test_scenes() -> None:
    pipe = load_pipeline("scenes")
    with torch.no_grad():
        graph = trace({"unet": pipe.unet}, lambda: generate(pipe, ["a red circle"], Generation(2, 2.5)))
    check(graph, UNET)


def test_json_keeps_roles_and_older_graphs_have_none(whole: LayerGraph) -> None:
    data = json.loads(json.dumps(to_json(whole)))
    assert from_json(data) == whole
    for layer in data["layers"]:
        del layer["role"]
    del data["parts"]
    old = from_json(data)
    assert {layer.role for layer in old.layers} == {""} and old.parts == ()
    assert architecture_fingerprint(old) == architecture_fingerprint(whole)
    assert set(ROLES) >= {layer.role for layer in whole.layers}


def test_the_document_has_the_roles() -> None:
    text = (Path(__file__).parents[3] / "docs" / "roles.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*?) \|$", text, re.MULTILINE))
    assert list(rows) == list(ROLES)
    assert all(rows[role].startswith(says) for role, says in ROLES.items())


class Stage(nn.Module):
    def __init__(self, width: int = 4, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_two_stages_iterate_and_a_language_model_does_not() -> None:
    """Each stage reads itself; the language model reads itself, too, and grows by it; the decoder reads others."""
    parts = {"decoder": Stage(depth=30), "words": Stage(), "first": Stage(), "second": Stage()}

    def run() -> None:
        text = torch.randn(1, 3, 4)
        for _ in range(4):
            text = torch.cat([text, parts["words"](text)[:, -1:]], 1)
        x = torch.randn(1, 1, 4)
        for name in ("first", "first", "first", "second", "second"):
            x = x - 0.1 * parts[name](x + text[:, :1])
        parts["decoder"](x)

    graph = trace(parts, run)
    assert [(p.name, p.iterates) for p in graph.parts] == [
        ("words", False), ("first", True), ("second", True), ("decoder", False),
    ]  # fmt: skip
    assert iterating(graph) == ("first", "second")
    none = replace(graph, parts=tuple(replace(part, iterates=False) for part in graph.parts))
    assert iterating(none) == ("decoder",)
    assert iterating(only(none, ("first", "words"))) == ("words",)


class Mixed(nn.Module):
    """Attention without projections over a residual stream, a functional projection, and a frozen blur."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.head = (nn.Linear(4, 4) for _ in range(4))
        self.weight = nn.Parameter(torch.eye(4))
        self.register_buffer("blur", torch.eye(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x @ self.blur)
        x = x + self.first(x)
        x = x + F.scaled_dot_product_attention(x, x, x)
        x = x + self.second(x @ self.weight)
        return self.head(x)


def test_attention_without_projections_names_no_layer() -> None:
    net = Mixed()

    def run() -> None:
        x = torch.randn(1, 3, 4)
        for _ in range(2):
            x = net(x)

    graph = trace({"net": net}, run)
    assert {layer.address.removeprefix("net."): layer.role for layer in graph.layers} == {
        "stem": "in", "first": "feed-forward", "second": "feed-forward", "head": "out",
    }  # fmt: skip
