"""LoRAs on a packed Flux whose input layer is wider or narrower than they need; rows of docs/compatibility.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bitplan
from bitplan.planner.errors import UserError
from tests.packed import plan_for
from tests.planner.applied.loras import adapter_for, file_of, term
from tests.zoo import ZOO

torch.set_num_threads(1)


def flux(**config: Any) -> Any:
    """A pipeline that takes Control LoRAs. config: what differs in its transformer."""
    pipe = ZOO["FluxPipeline"].build()
    if config:
        torch.manual_seed(0)
        pipe.transformer = type(pipe.transformer).from_config({**pipe.transformer.config, **config})
    return pipe


def inputs(channels: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(1, 4, channels, generator=random),
        "encoder_hidden_states": torch.randn(1, 3, 32, generator=random),
        "pooled_projections": torch.randn(1, 32, generator=random),
        "timestep": torch.tensor([0.5]), "guidance": torch.tensor([3.0]), "img_ids": torch.zeros(4, 3),
        "txt_ids": torch.zeros(3, 3),
    }  # fmt: skip


def pack(pipe: Any, scheme: str) -> Any:
    """With its input layer in that scheme."""
    plan = plan_for(pipe, ["transformer"], ("w8a8", "w8a16"))
    return bitplan.apply(pipe, replace(plan, schemes={**plan.schemes, "transformer.x_embedder": scheme}))


def control_lora() -> dict[str, Tensor]:
    """The tensors of its file; its input layer takes twice as many features."""
    layers = ["x_embedder", "context_embedder", "transformer_blocks.0.attn.to_q", "proj_out"]
    adapter = dict(adapter_for(flux().transformer, layers, 0))
    a, b = adapter["x_embedder"]
    adapter["x_embedder"] = torch.cat([a, a.flip(0)], 1), b
    return file_of(adapter, "transformer") | {"transformer.transformer_blocks.0.attn.norm_q.weight": torch.ones(16) / 2}


@pytest.mark.parametrize("scheme", ["keep", "w8a8t", "w4a16"])
@torch.no_grad()
def test_a_control_lora(scheme: str, tmp_path: Path) -> None:
    """In place of a packed input layer there is a float one with its weight, until the LoRA is reset."""
    plain, pipe = flux(), pack(flux(), scheme)
    layer, weight = pipe.transformer.x_embedder, pipe.transformer.x_embedder.weight.clone()
    before, moved = ([one.transformer(**inputs(16))[0] for one in (plain, pipe)], [])
    for one in (plain, pipe):
        one.load_lora_weights(control_lora(), "control")
        moved.append(one.transformer(**inputs(32))[0])
    error = float((before[1] - before[0]).norm())
    assert float(((moved[1] - before[1]) - (moved[0] - before[0])).norm()) < 1.5 * error
    assert float((moved[0] - before[0]).norm()) > 3 * error
    assert torch.equal(pipe.transformer.x_embedder.weight[:, :16], weight)
    pipe.unload_lora_weights()
    if scheme != "keep":
        with pytest.raises(UserError, match="transformer.x_embedder is .* another layer is in its place"):
            pipe.save_pretrained(tmp_path)
        with pytest.raises(UserError, match="a wider layer in the place of transformer.x_embedder; call unload"):
            bitplan.restore(pipe)
    pipe.to(torch.float64)
    pipe.unload_lora_weights(reset_to_overwritten_params=True)
    assert (pipe.transformer.x_embedder is layer) == (scheme != "keep")
    assert scheme == "keep" or layer.weight.dtype == torch.float64
    pipe.to(torch.float32)
    pipe.save_pretrained(tmp_path)
    bitplan.restore(pipe)
    assert torch.equal(pipe.transformer(**inputs(16))[0], before[0])


LAYER = "text_encoder.encoder.layers.0.self_attn.q_proj"
BROKEN = {  # tensors that fit nowhere: of the transformer, and of what is loaded once that has its LoRA
    "size mismatch": {"transformer.proj_out.lora_B.weight": torch.ones(7, 2)},
    "ignore_mismatched_sizes": {f"{LAYER}.lora_{x}.weight": torch.ones(7, 3) for x in "AB"},
}


@pytest.mark.parametrize(("scheme", "error"), zip(("keep", "w8a8t", "w4a16"), (*BROKEN, *BROKEN), strict=False))
@torch.no_grad()
def test_after_a_control_lora(scheme: str, error: str, tmp_path: Path) -> None:
    """Unloaded, or not loaded since it fits nowhere, it leaves the packed pipeline as it was, here a loaded one."""
    pipe = pack(flux(), scheme)
    pipe.transformer.save_pretrained(tmp_path)
    model = pipe.transformer = type(pipe.transformer).from_pretrained(tmp_path)
    before, modules = model(**inputs(16))[0], dict(model.named_modules())
    for _ in range(2):
        with pytest.raises(RuntimeError, match=error):
            pipe.load_lora_weights(control_lora() | BROKEN[error], "control")
        assert dict(model.named_modules()) == modules and model.config.in_channels == 16
        assert torch.equal(model(**inputs(16))[0], before)
    pipe.load_lora_weights(control_lora(), "control")
    assert model.config.in_channels == 32 and model(**inputs(32))[0].shape == before.shape
    pipe.unload_lora_weights(reset_to_overwritten_params=True)
    assert torch.equal(model(**inputs(16))[0], before)
    assert scheme == "keep" or model.x_embedder is modules["x_embedder"]


@torch.no_grad()
def test_a_lora_for_fewer_inputs() -> None:
    """Loaded into a pipeline with a wider input layer, as those of Control LoRAs are, it is filled up with zeros."""
    pipe = flux(in_channels=32, out_channels=16)
    adapter = adapter_for(flux().transformer, ["x_embedder"], 0)
    pack(pipe, "w8a8")
    layer = pipe.transformer.x_embedder
    for name in ("first", "second"):  # the second one goes around a layer that has one
        pipe.load_lora_weights(file_of(adapter, "transformer"), name)
    pipe.set_adapters(["first", "second"], [1.0, 0.5])
    x = inputs(32)["hidden_states"]
    expected = layer(x) + 1.5 * term(layer, x[..., :16], adapter["x_embedder"])
    torch.testing.assert_close(pipe.transformer.x_embedder(x), expected)
