"""Embeddings with one weight, as those of T5, are packed as one layer; other ties stay in float and are named."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

import bitplan
from bitplan.planner.graph.trace import find_layers, trace
from bitplan.plans.formats.storage import stored_bytes
from bitplan.plans.layers.modules import is_packed, module_bytes
from bitplan.plans.plan import PlanError
from bitplan.plans.scheme import parse_scheme
from tests import tiny
from tests.packed import plan_for, same, stored

torch.set_num_threads(1)
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
QWEN = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
Made = tuple[Callable[[], Any], tuple[str, ...]]  # how a model is made, the layers with one weight
TWINS: dict[str, Made] = {
    "T5EncoderModel": (lambda: T5EncoderModel(T5Config(**T5)), ("shared", "encoder.embed_tokens")),
    "UMT5EncoderModel": (lambda: UMT5EncoderModel(UMT5Config(**T5)), ("shared", "encoder.embed_tokens")),
}
TIED: dict[str, Made] = {
    "Qwen2ForCausalLM": (lambda: Qwen2ForCausalLM(Qwen2Config(**QWEN)), ("lm_head", "model.embed_tokens")),
}
WORDS = torch.arange(8)[None]


def pipeline(name: str) -> Any:
    torch.manual_seed(0)
    pipe = tiny.build_pipeline()
    pipe.text_encoder = (TWINS | TIED)[name][0]().eval()
    return pipe


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("scheme", ["w8a16", "w4g32za16", "fp8a16"])
def test_embeddings_with_one_weight(name: str, scheme: str, tmp_path: Path) -> None:
    """They are one layer: measured, counted, packed, saved and loaded once, and restored as they were."""
    pipe, (first, second) = pipeline(name), TWINS[name][1]
    model = pipe.text_encoder
    full, modules, weight = module_bytes(model), [*map(model.get_submodule, TWINS[name][1])], model.shared.weight
    with torch.no_grad():
        expected = model(WORDS)[0]
    graph = trace({"text_encoder": model}, lambda: model(WORDS))
    layer = graph.by_address[f"text_encoder.{first}"]
    assert layer.aliases == (f"text_encoder.{second}",) and layer.call_count == 1 and not graph.reasons
    assert [model.get_submodule(path) for path in (first, second)] == modules

    plan = plan_for(pipe, ("text_encoder",), (scheme,))
    bitplan.apply(pipe, plan)
    saved = sum(4 * prod(one.weight) - stored_bytes(one.weight, parse_scheme(scheme).weight) for one in graph.layers)
    assert module_bytes(model) == full - saved
    assert model.get_submodule(first) is model.get_submodule(second) and is_packed(model.get_submodule(first))
    with torch.no_grad():
        packed = model(WORDS)[0]

    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert same(stored(again), stored(model)) and module_bytes(again) == module_bytes(model)
    again.save_pretrained(tmp_path / "again")
    files = [load_file(place / "model.safetensors") for place in (tmp_path, tmp_path / "again")]
    assert same(*files) and f"{first}.codes" in files[0] and f"{second}.codes" not in files[0]
    with torch.no_grad():
        assert torch.equal(again(WORDS)[0], packed)

    bitplan.restore(pipe)
    assert [model.get_submodule(path) for path in (first, second)] == modules
    assert all(module.weight is weight for module in modules) and module_bytes(model) == full
    with torch.no_grad():
        assert torch.equal(model(WORDS)[0], expected)


def test_embeddings_with_one_weight_follow_a_cast() -> None:
    pipe = pipeline("UMT5EncoderModel")
    bitplan.restore(bitplan.apply(pipe, plan_for(pipe, ("text_encoder",), ("w8a16",))).to(torch.bfloat16))
    model = pipe.text_encoder
    assert model.shared is not model.encoder.embed_tokens
    assert model.shared.weight is model.encoder.embed_tokens.weight and model.shared.weight.dtype == torch.bfloat16


def test_an_embedding_with_a_hook_stays() -> None:
    model = TWINS["T5EncoderModel"][0]()
    model.shared.register_forward_hook(lambda *_: None)
    graph = trace({"t": model}, lambda: model(WORDS))
    assert "t.shared" not in graph.by_address and "encoder.embed_tokens.weight" in dict(graph.reasons)["t.shared"]


@pytest.mark.parametrize("name", TIED)
def test_tied_embeddings(name: str, tmp_path: Path) -> None:
    pipe, pair = pipeline(name), {f"text_encoder.{path}" for path in TIED[name][1]}
    model = pipe.text_encoder
    graph = trace({"text_encoder": model}, lambda: model(WORDS))
    reasons, layers = dict(graph.reasons), {layer.address: layer for layer in graph.layers}
    assert layers and not pair & layers.keys() and pair <= set(graph.unused) and not graph.tied
    for one in pair:
        (other,) = pair - {one}
        assert reasons[one] == f"its weight is also {other}.weight, which a packed layer could not share"

    plan = plan_for(pipe, ("text_encoder",), ("w8a16", "w4a16"))
    assert plan.schemes.keys() == layers.keys()
    before = module_bytes(model)
    saved = sum(
        4 * layers[address].weight[0] * layers[address].weight[1]
        - stored_bytes(layers[address].weight, parse_scheme(scheme).weight)
        for address, scheme in plan.schemes.items()
    )
    bitplan.apply(pipe, plan)
    assert module_bytes(model) == before - saved
    first, second = (model.get_submodule(path) for path in TIED[name][1])
    assert first.weight is second.weight

    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert same(stored(again), stored(model)) and module_bytes(again) == module_bytes(model)
    with torch.no_grad():
        assert torch.equal(again(WORDS)[0], model(WORDS)[0])


@pytest.mark.parametrize("name", [*TWINS, *TIED])
def test_a_plan_that_names_tied_embeddings(name: str) -> None:
    pipe, path = pipeline(name), (TWINS | TIED)[name][1][1]
    plan = plan_for(pipe, ("text_encoder",), ("w8a16",))
    plan = type(plan)(**{**vars(plan), "schemes": {**plan.schemes, f"text_encoder.{path}": "w8a16"}})
    with pytest.raises(PlanError, match=f"1 of .* layers of the plan are not in this model, such as .*{path}"):
        bitplan.apply(pipe, plan)
    assert not stored(pipe.text_encoder)


class Tied(nn.Module):
    """Three layers of one shape. own: the weight of the first one is also a parameter of the module; called: the places
    of those that are called."""

    def __init__(self, own: bool = False, called: tuple[int, ...] = (0, 1, 2)) -> None:
        super().__init__()
        self.layers, self.called = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), called
        if own:
            self.own = self.layers[0].weight
        else:
            self.layers[1].weight = self.layers[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for place in self.called:
            x = self.layers[place](x)
        return x


@pytest.mark.parametrize(
    ("model", "planned", "other"),
    [
        (Tied(), ["m.layers.0", "m.layers.1", "m.layers.2"], None),
        (Tied(called=(0, 2)), ["m.layers.2"], "m.layers.1.weight"),
        (Tied(own=True), ["m.layers.1", "m.layers.2"], "m.own"),
    ],
    ids=["both are called", "one is called", "a parameter"],
)
def test_ties_of_a_module(model: Tied, planned: list[str], other: str | None) -> None:
    graph = trace({"m": model}, lambda: model(torch.ones(2, 4)))
    assert [layer.address for layer in graph.layers] == planned
    assert graph.tied == ((("m.layers.0", "m.layers.1"),) if other is None else ())
    why = f"its weight is also {other}, which a packed layer could not share"
    assert dict(graph.reasons) == ({"m.layers.0": why} if other else {})
    assert ("m.layers.0" in find_layers({"m": model})) == (other != "m.own")
