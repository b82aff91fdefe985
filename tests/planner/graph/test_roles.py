"""Roles and iterating components, on models whose architecture is known: only here may layers have names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import (
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from bitplan.planner.graph.components import iterating, only
from bitplan.planner.graph.layers import ROLES, GraphError, LayerGraph, architecture_fingerprint, from_json, to_json
from bitplan.planner.graph.trace import trace
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import generate, load_pipeline
from tests import tiny
from tests.planner.graph.sampling import TIMES, check

torch.set_num_threads(1)

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
