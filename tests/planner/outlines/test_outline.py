"""Outlines: equal to published numbers of models and to real runs of the same classes; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from benchmarks.meta_models import FOLDER, compare, counts
from torch.utils._pytree import tree_map

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import Layer, from_json, total_macs
from bitplan.planner.graph.trace import trace
from bitplan.planner.outlines import MAKERS
from bitplan.planner.outlines.examine import examine, stored
from bitplan.planner.outlines.inputs import Latents
from bitplan.planner.outlines.models import read
from bitplan.planner.outlines.outline import Outline, Size
from bitplan.planner.outlines.retime import bare
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.profiles.profile import Profile, content_digest, open_profile
from bitplan.planner.scenes import PIPELINE_FOLDER
from bitplan.plans.formats.storage import empty
from bitplan.plans.scheme import parse_scheme
from tests import tiny

torch.set_num_threads(1)
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
SMALL_UNET = {
    "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16, "attention_head_dim": 2,
}  # fmt: skip
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("UNet2DConditionModel", SMALL_UNET),
    ("UNet2DConditionModel", SMALL_UNET | {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 40}),
    ("UNet2DConditionModel", SMALL_UNET | {
        "class_embed_type": "projection", "projection_class_embeddings_input_dim": 12}),
    ("UNet2DConditionModel", SMALL_UNET | {
        "addition_embed_type": "image", "encoder_hid_dim": 16, "encoder_hid_dim_type": "image_proj"}),
    ("UNet2DModel", {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "attention_head_dim": 4}),
    ("SD3Transformer2DModel", HEADS | {
        "sample_size": 8, "in_channels": 4, "num_layers": 2, "joint_attention_dim": 12, "caption_projection_dim": 16,
        "pooled_projection_dim": 6, "out_channels": 4, "pos_embed_max_size": 16}),
    ("FluxTransformer2DModel", HEADS | {
        "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 12,
        "pooled_projection_dim": 6, "guidance_embeds": True, "axes_dims_rope": (2, 2, 4)}),
    ("QwenImageTransformer2DModel", HEADS | {
        "in_channels": 16, "out_channels": 4, "num_layers": 1, "joint_attention_dim": 12, "axes_dims_rope": (2, 2, 4)}),
    ("PixArtTransformer2DModel", HEADS | {
        "sample_size": 8, "num_layers": 1, "cross_attention_dim": 16, "caption_channels": 12, "norm_num_groups": 4}),
    ("DiTTransformer2DModel", HEADS | {
        "sample_size": 8, "num_layers": 1, "num_embeds_ada_norm": 10, "norm_num_groups": 4}),
    ("SanaTransformer2DModel", HEADS | {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12}),
    ("AuraFlowTransformer2DModel", HEADS | {
        "sample_size": 8, "num_mmdit_layers": 1, "num_single_dit_layers": 1, "joint_attention_dim": 12,
        "caption_projection_dim": 16, "pos_embed_max_size": 64}),
    ("WanTransformer3DModel", {
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 12,
        "freq_dim": 8, "ffn_dim": 16, "num_layers": 1, "rope_max_seq_len": 64}),
    ("CogVideoXTransformer3DModel", HEADS | {
        "in_channels": 4, "out_channels": 4, "time_embed_dim": 8, "text_embed_dim": 12, "num_layers": 1,
        "sample_width": 8, "sample_height": 8, "sample_frames": 9, "max_text_seq_length": 5,
        "use_rotary_positional_embeddings": True}),
    ("LTXVideoTransformer3DModel", HEADS | {
        "in_channels": 4, "out_channels": 4, "cross_attention_dim": 16, "num_layers": 1, "caption_channels": 12}),
    ("CLIPTextModel", {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}),
    ("CLIPTextModelWithProjection", {
        "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}),
    ("T5EncoderModel", {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 10}),
    ("UMT5EncoderModel", {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 10}),
]  # fmt: skip


def configuration(name: str, options: dict[str, Any], folder: Path) -> str:
    path = folder / "config.json"
    if hasattr(diffusers, name):
        path.write_text(json.dumps({"_class_name": name, **options}))
    else:
        config = getattr(transformers, name).config_class(**options)
        path.write_text(json.dumps(config.to_dict() | {"architectures": [name]}))
    return str(path)


@pytest.fixture(scope="module", params=list(counts()))
def published(request: pytest.FixtureRequest) -> tuple[str, Outline]:
    return request.param, examine(str(FOLDER / f"{request.param}.json"))


def test_the_published_models_counts(published: tuple[str, Outline]) -> None:
    name, outline = published
    (part,) = outline.parts
    (module,) = read(str(FOLDER / f"{name}.json")).parts.values()
    assert all(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    same = compare(module, len(outline.graph.layers), counts()[name])
    assert {"parameters"} < set(same) and all(same.values()), same
    assert part.why is None and not part.graph.unused and part.macs > 1e12
    assert all(layer.call_count for layer in outline.graph.layers)


def test_a_comparison_can_fail() -> None:
    name = "pixart-sigma-xl-2-1024-transformer"
    (module,) = read(str(FOLDER / f"{name}.json")).parts.values()
    module.pos_embed.proj.weight = torch.nn.Parameter(torch.empty(1151, 4, 2, 2, device="meta"))
    assert compare(module, 287, counts()[name]) == {"parameters": False, "file": False}


def test_the_layers_of_sdxl_are_those_that_mixdq_counts() -> None:
    rows = json.loads((FOLDER.parent / "sdxl_shapes.json").read_text())
    graph = examine(str(FOLDER / "sdxl-base-unet.json")).graph
    assert {layer.address.removeprefix("unet."): (list(layer.weight), layer.macs) for layer in graph.layers} == {
        path: (weight, macs) for path, weight, macs, *_ in rows
    }


@pytest.mark.parametrize(("name", "options"), SMALL, ids=[name for name, _ in SMALL])
def test_what_runs_without_values_runs_with_them(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = configuration(name, options, tmp_path)
    row = MAKERS[name]
    side = 8 * row.scale
    size = Size(side if row.scale else None, side if row.scale else None, 9 if row.frames > 1 else None, 5, 2)
    (part,) = examine(path, size=size).parts
    assert part.why is None and part.call is not None
    frames = (9 - 1) // row.stretch + 1 if row.frames > 1 else 1
    assert part.call == Latents(2, frames, 8 * bool(row.scale), 8 * bool(row.scale), 5)
    if hasattr(diffusers, name):
        module = getattr(diffusers, name).from_config(options).eval()
    else:
        kind = getattr(transformers, name)
        module = kind(kind.config_class(**options)).eval()
    given = row.make(module.config, part.call)
    real = tree_map(lambda x: torch.zeros_like(x, device="cpu") if isinstance(x, torch.Tensor) else x, given)
    with torch.no_grad():
        assert trace({row.component: module}, lambda: module(**real)) == part.graph
    assert part.parameters == sum(tensor.numel() for tensor in module.parameters())


def test_every_class_in_the_table_is_tested() -> None:
    assert {name for name, _ in SMALL} == set(MAKERS)


def test_a_profile_made_elsewhere_is_of_this_architecture(finished: Path, tiny_folder: Path) -> None:
    outline = examine(str(tiny_folder), ["unet"], Size(tokens=tiny.tokenizer().model_max_length))
    with open_profile(finished) as store:
        graph = from_json(store.graph())
        assert store.header()["model"]["architecture"] == outline.architecture
    ours = outline.graph.by_address
    assert set(ours) == set(graph.by_address)
    for name, layer in graph.by_address.items():
        (call,) = ours[name].calls
        assert {seen.input[1:] for seen in layer.calls} == {call.input[1:]}
        assert {seen.macs / seen.output[0] for seen in layer.calls} == {call.macs / call.output[0]}


def test_scenes_from_its_configuration() -> None:
    unet = load_pipeline("scenes").unet
    given = {
        "sample": torch.zeros(1, 4, 16, 16), "timestep": torch.zeros(1),
        "encoder_hidden_states": torch.zeros(1, 24, 128), "added_cond_kwargs": {},
    }  # fmt: skip
    with torch.no_grad():
        assert examine("scenes", ["unet"], Size(64, 64, tokens=24)).graph == trace(
            {"unet": unet}, lambda: unet(**given)
        )
    assert examine(str(PIPELINE_FOLDER / "unet")).parts[0].component == "unet"


def test_a_class_without_a_line_is_told_without_multiply_adds() -> None:
    whole = examine("scenes")
    vae = {part.component: part for part in whole.parts}["vae"]
    assert vae.call is None and vae.macs == 0 and "the inputs of AutoencoderKL are not known" in str(vae.why)
    assert len(vae.graph.layers) > 10 and all(layer.address.startswith("vae.") for layer in vae.graph.layers)
    assert total_macs(whole.graph) == sum(part.macs for part in whole.parts)
    assert "vae: the inputs of AutoencoderKL" in str(bitplan.inspect(config="scenes"))


def test_bytes_are_those_of_the_stored_tensors() -> None:
    outline = examine("scenes", ["unet"])
    w4 = parse_scheme("w4g64ma8")
    full, half, row = stored(outline.parts, [w4])
    weights = [layer.weight for layer in outline.graph.layers]
    assert full.whole == 2 * half.whole == 4 * outline.parameters
    fits = [shape for shape in weights if torch.Size(shape[1:]).numel() > 64]
    rest = sum(torch.Size(shape).numel() for shape in weights if shape not in fits)
    assert row.weights == sum(empty(shape, w4.weight).nbytes for shape in fits) + 2 * rest
    assert row.kept == len(weights) - len(fits) > 0
    assert row.whole - row.weights == half.whole - half.weights


def test_the_command_line(command_line: Any) -> None:
    told = command_line("inspect", "--config", "scenes", "--components", "unet", "--schemes", "w8a8", "--width", "128")
    assert told.exit_code == 0 and "133 layers" in told.output and "1 x 16 x 32" in told.output
    found = json.loads(command_line("inspect", "--config", "scenes", "--schemes", "w8a8", "--json").output)
    assert found["layers"] == len(found["graph"]["layers"]) == 199
    assert [row["scheme"] for row in found["stored"]] == ["float32", "bfloat16", "w8a8"]


@pytest.mark.parametrize(("options", "words"), [
    (("--config", "none.json"), "cannot read"),
    (("--config", "TMP/text.json"), "not JSON"),
    (("--config", "TMP/list.json"), "not a configuration"),
    (("--config", "TMP/empty.json"), "names no class"),
    (("--config", "TMP/strange.json"), "installed diffusers does not have"),
    (("--config", "TMP/wrong.json"), "cannot build UNet2DModel"),
    (("--config", "scenes", "--components", "unet,mind"), "of a module mind"),
    (("--config", "TMP/wrong.json", "--components", "a,b"), "describes one component"),
    (("--config", "scenes", "--width", "65"), "not a multiple of 4"),
    (("--config", "scenes", "--batch", "0"), "give at least 1"),
    (("--config", "scenes", "TMP/list.json"), "give one of them"),
    (("--json", "TMP/list.json"), "is not a plan"),
    ((), "give one of them"),
])  # fmt: skip
def test_what_is_refused(options: tuple[str, ...], words: str, tmp_path: Path, command_line: Any) -> None:
    files = {
        "text": "hello", "list": "[]", "empty": "{}", "strange": '{"_class_name": "Strange"}',
        "wrong": '{"_class_name": "UNet2DModel", "down_block_types": ["None"]}',
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / f"{name}.json").write_text(text)
    done = command_line("inspect", *(option.replace("TMP", str(tmp_path)) for option in options))
    assert done.exit_code == 2 and words in done.output and done.output.count("\n") == 1


@pytest.fixture
def elsewhere(finished: Path, tmp_path: Path) -> Path:
    """A finished profile of another machine, with costs that are wrong here."""
    with (
        open_profile(finished) as old,
        Profile.create(
            tmp_path / "e.profile", old.header() | {"machine": {"processor": "other", "threads": 64, "device": "cpu"}}
        ) as new,
    ):
        new.write_graph(old.graph(), old.schemes())
        new.write_ranges(old.ranges())
        new.write_measurements(old.measurements(), old.families(), old.responses())
        new.write_baseline(old.baseline())
    return tmp_path / "e.profile"


def test_a_profile_made_elsewhere_is_costed_here(elsewhere: Path, finished: Path, tiny_folder: Path) -> None:
    out = elsewhere.with_name("here.profile")
    assert bitplan.cost(elsewhere, out) == out
    with open_profile(out) as here, open_profile(finished) as there:
        assert content_digest(here) == content_digest(there)
        assert [(c.layer, c.scheme, c.bytes, c.kernel, c.simulated) for c in here.costs()] == [
            (c.layer, c.scheme, c.bytes, c.kernel, c.simulated) for c in there.costs()
        ]
        assert all(c.ms and c.ms > 0 for c in here.costs())
        assert here.header()["machine"]["processor"] != "other"
        assert here.header()["model"] == there.header()["model"]
    bitplan.solve(out, out.with_name("p.plan.yaml"), latency="1000%")
    again = bitplan.cost(out, out.with_name("again.profile"), config=tiny_folder, width=16, tokens=8)
    with open_profile(again) as once, open_profile(out) as whole:
        assert [c.bytes for c in once.costs()] == [c.bytes for c in whole.costs()]
    assert not list(out.parent.glob("*.part"))


def test_costs_of_another_model_are_refused(elsewhere: Path, command_line: Any) -> None:
    out = elsewhere.with_name("x.profile")
    done = command_line("cost", elsewhere, "--out", out, "--config", "scenes")
    assert done.exit_code == 2 and "not in the configuration or of another size" in done.output
    assert not out.exists() and not list(out.parent.glob("*.part"))
    assert "which is read" in command_line("cost", elsewhere, "--out", elsewhere).output


def test_a_layer_alone_is_as_it_was_in_the_model() -> None:
    outline = examine("scenes", ["unet"])
    for layer in outline.graph.layers:
        module = bare(layer, torch.bfloat16)
        call = layer.calls[0]
        assert tuple(module.weight.shape) == layer.weight and (module.bias is not None) == layer.bias
        assert (
            tuple(module.to("meta")(torch.empty(call.input, device="meta", dtype=torch.bfloat16)).shape) == call.output
        )
    with pytest.raises(UserError, match="not timed alone"):
        bare(Layer("a", (), "other", (1, 1), False, 1, None, ()), torch.float32)


def test_a_configuration_is_enough_to_export(finished: Path, tiny_folder: Path, tmp_path: Path) -> None:
    plan = bitplan.solve(finished, tmp_path / "p.plan.yaml", uniform="w8a8")
    texts = []
    for model in (tiny_folder, tiny_folder / "model_index.json", tiny_folder / "unet" / "config.json"):
        bitplan.export(plan, "sdnq", tmp_path / "sdnq.json", model=model, approximate=True)
        texts.append((tmp_path / "sdnq.json").read_text())
    assert len(set(texts)) == 1
