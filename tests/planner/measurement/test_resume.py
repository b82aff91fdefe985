"""Measuring from where the layer first acts gives the losses of whole runs, of every metric, in whole pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bitplan.planner.measurement import run as profiling
from bitplan.planner.measurement.methods import exhaustive
from bitplan.planner.measurement.replay import Replay, build_replay
from bitplan.planner.measurement.resume import RecordedReplay, record_replay, resumable, run_from
from bitplan.planner.measurement.worker import Settings as profiling__Settings
from bitplan.planner.pipelines.conditions import built_in_prompts
from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.pipelines.subject import subject_of
from bitplan.planner.pipelines.traced import examine_all
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.scenes import SCENES
from bitplan.plans.layers.simulation import variant
from bitplan.plans.layers.swap import find_layer
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.metrics.learned import Encoder
from bitplan.sensitivity.runs.exhaustive import measure, measure_layers
from tests import tiny

torch.set_num_threads(1)

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
TINY = {
    "unet": (
        "conv_in", "time_embedding.linear_1", "down_blocks.0.resnets.0.conv2", f"{ATTENTION}.attn2.to_k",
        f"{ATTENTION}.attn2.to_v", f"{ATTENTION}.ff.net.2", "up_blocks.1.resnets.1.time_emb_proj", "conv_out",
    ),
    "text_encoder": ("encoder.layers.0.mlp.fc1", "encoder.layers.0.self_attn.v_proj"),
    "vae": ("post_quant_conv", "decoder.conv_in", "decoder.up_blocks.1.resnets.0.conv1"),
}  # fmt: skip
EMBEDDED = {
    "unet": ("time_embedding.linear_2", "mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
             "up_blocks.1.resnets.0.conv1"),
}  # fmt: skip
SCHEMES = ("w8a8", "w3ma8", "w4a16")


def compare(
    pipe: Any, encoder: Encoder, paths: dict[str, tuple[str, ...]], replay: Replay, prompts: tuple[str, ...]
) -> None:
    parts = {name: getattr(pipe, name) for name in paths}
    layers = [f"{name}.{path}" for name, some in paths.items() for path in some]
    modules = {layer: find_layer(parts, layer) for layer in layers}
    start = record_replay(modules_of(pipe), replay)
    assert resumable(start, modules.values()) == set(modules.values())
    variants = {
        (layer, text): lambda layer=layer, text=text: variant(parts, layer, parse_scheme(text))
        for layer in layers for text in SCHEMES
    }  # fmt: skip
    context = {"encoder": encoder, "prompts": prompts}
    whole = measure(variants, replay.run, replay.reference, **context)
    resumed = measure_layers(variants, lambda layer: run_from(start, modules[layer]), replay.reference, **context)
    changed = 0
    for wholes, ours in zip(whole, resumed, strict=True):
        changed += any(one.mean > 1e-6 for one in wholes)
        for one, other in zip(wholes, ours, strict=True):
            assert (one.layer, one.scheme, one.metric, one.count) == (
                other.layer, other.scheme, other.metric, other.count,
            )  # fmt: skip
            assert other.mean == pytest.approx(one.mean, rel=1e-5, abs=1e-10)
            assert other.stderr == pytest.approx(one.stderr, rel=1e-4, abs=1e-10)
    assert changed > len(variants) / 2


def modules_of(pipe: Any) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def replay_of(pipe: Any, prompts: tuple[str, ...], generation: Generation) -> Replay:
    return build_replay(subject_of(pipe, generation), [pipe.unet], prompts, generation.seed, 2)


@pytest.fixture
def replay(pipe: Any) -> Replay:
    return replay_of(pipe, tiny.PROMPTS, Generation(3, 2.0))


def test_tiny_pipeline(pipe: Any, clip_folder: Path) -> None:
    """Early, middle and late layers of every component, and one module at two places."""
    first, second = pipe.unet.up_blocks[1].resnets
    first.time_emb_proj = second.time_emb_proj
    made = replay_of(pipe, tiny.PROMPTS, Generation(3, 2.0))
    compare(pipe, load_encoder("", str(clip_folder)), TINY, made, tiny.PROMPTS)


def test_embedded_pipeline() -> None:
    pipe, prompts = load_pipeline(SCENES), tuple(built_in_prompts(True, 2))
    compare(pipe, load_encoder(SCENES), EMBEDDED, replay_of(pipe, prompts, Generation(2, 2.5)), prompts)


def work(start: RecordedReplay, layer: nn.Module, module: nn.Module, images: bool = True) -> int:
    """How often a module inside the denoiser really computes."""
    calls, forward = 0, module.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(*args, **kwargs)

    module.forward = counting
    try:
        run_from(start, layer, images)
    finally:
        del module.forward
    return calls


def test_what_is_not_computed_again(pipe: Any, replay: Replay) -> None:
    """Of 3 steps, 2 of which are replayed, the images' first is the first replayed one."""
    unet = pipe.unet
    start = record_replay(modules_of(pipe), replay)
    assert work(start, unet.conv_in, unet.conv_out) == 2 + 2
    assert work(start, unet.conv_out, unet.conv_in) == 2
    assert work(start, unet.conv_in, unet.conv_out, images=False) == 2
    assert work(start, unet.conv_in, pipe.text_encoder) == 0
    assert work(start, pipe.vae.decoder.conv_out, unet) == 0
    assert work(start, pipe.vae.decoder.conv_out, pipe.vae.decoder.conv_in) == 1  # nothing is held inside a decoder


def test_without_memory_the_answers_are_the_same(pipe: Any, replay: Replay) -> None:
    layer = pipe.unet.conv_out
    start = record_replay(modules_of(pipe), replay, limit=0)
    with variant({"unet": pipe.unet}, "unet.conv_out", parse_scheme("w3ma8")):
        assert torch.equal(run_from(start, layer).outputs, replay.run().outputs)
    assert work(start, layer, pipe.unet.conv_in) == 2 + 3


@pytest.mark.parametrize("how", ["adds", "needs"])
def test_a_module_with_a_state_is_never_skipped(pipe: Any, how: str) -> None:
    """The first convolution leaves something for the last one outside of arguments and outputs."""
    head, tail = pipe.unet.conv_in, pipe.unet.conv_out
    plain, state = head.forward, {}

    def leave(x: torch.Tensor) -> torch.Tensor:
        state["seen"] = x.mean()
        return plain(x)

    def take(_: nn.Module, __: object, out: torch.Tensor) -> torch.Tensor:
        return out + (state.pop("seen") if how == "needs" else state.pop("seen", 0.0))

    head.forward = leave
    tail.register_forward_hook(take)
    replay = replay_of(pipe, tiny.PROMPTS, Generation(3, 2.0))
    start = record_replay(modules_of(pipe), replay)
    assert resumable(start, [head, tail]) == {head}


def test_an_output_that_is_written_to_unseen_is_not_looked_up(pipe: Any) -> None:
    """The pipeline doubles the text encoder's output through .data, and so it is computed again in each run."""
    text, unet = pipe.text_encoder, pipe.unet
    encode = pipe.encode_prompt

    def doubled(*args: Any, **kwargs: Any) -> Any:
        with hooked(text):
            return encode(*args, **kwargs)

    @contextmanager
    def hooked(module: nn.Module) -> Iterator[None]:
        plain = module.forward
        module.forward = lambda *args, **kwargs: twice(plain(*args, **kwargs))
        yield
        module.forward = plain

    def twice(out: Any) -> Any:
        out.last_hidden_state.data.mul_(2)
        return out

    pipe.encode_prompt = doubled
    replay = replay_of(pipe, tiny.PROMPTS, Generation(3, 2.0))
    start = record_replay(modules_of(pipe), replay)
    first = find_layer({"text_encoder": text}, "text_encoder.encoder.layers.0.mlp.fc1")
    assert resumable(start, [first, unet.conv_in, unet.conv_out]) == {first, unet.conv_in, unet.conv_out}
    with torch.no_grad():
        unet.conv_in.weight *= 1.1
        resumed, whole = run_from(start, unet.conv_in), replay.run()
    assert torch.equal(resumed.outputs, whole.outputs) and not torch.equal(whole.outputs, replay.reference.outputs)
    assert all(map(torch.equal, resumed.denoised, whole.denoised))


def test_profiles_are_measured_this_way(pipe: Any, tmp_path: Path, clip_folder: Path, monkeypatch: Any) -> None:
    """And read as those of whole runs, to the last digit."""
    generation = Generation(2, 2.0)
    settings = profiling__Settings("tiny", tiny.PROMPTS, ("w8a8", "w2ma8"), generation, 2, 1, (), str(clip_folder))
    rows = []
    traced = examine_all(subject_of(pipe, generation), tiny.PROMPTS)
    used: list[nn.Module] = []
    monkeypatch.setattr(exhaustive, "run_from", lambda start, layer: (used.append(layer), run_from(start, layer))[1])
    for name in ("resumed", "whole"):
        if name == "whole":
            monkeypatch.setattr(exhaustive, "run_from", lambda start, layer: start.replay.run())
        profiling.run_profile(traced, settings, tmp_path / name, profiling.MeasureOptions("exhaustive"))
        with open_profile(tmp_path / name) as store:
            rows.append(store.measurements())
    assert len(used) == len(rows[0]) / 4 and rows[0] == rows[1]
