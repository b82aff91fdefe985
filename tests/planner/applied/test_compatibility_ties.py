"""Layers whose weight is also held elsewhere, as the embeddings of T5 and tied heads, are left in float and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
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
from bitplan.plans.layers.modules import module_bytes
from bitplan.plans.plan import PlanError
from bitplan.plans.scheme import parse_scheme
from tests import tiny
from tests.packed import plan_for, same, stored

torch.set_num_threads(1)
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
TIED: dict[str, Any] = {  # model -> how it is made, the layers with one weight
    "T5EncoderModel": (lambda: T5EncoderModel(T5Config(**T5)), ("shared", "encoder.embed_tokens")),
    "UMT5EncoderModel": (lambda: UMT5EncoderModel(UMT5Config(**T5)), ("shared", "encoder.embed_tokens")),
    "Qwen2ForCausalLM": (
        lambda: Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
                num_key_value_heads=2, tie_word_embeddings=True,
            )
        ),
        ("lm_head", "model.embed_tokens"),
    ),
}  # fmt: skip
WORDS = torch.arange(8)[None]


def pipeline(name: str) -> Any:
    torch.manual_seed(0)
    pipe = tiny.build_pipeline()
    pipe.text_encoder = TIED[name][0]().eval()
    return pipe


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


@pytest.mark.parametrize("name", TIED)
def test_a_plan_that_names_tied_embeddings(name: str) -> None:
    pipe, path = pipeline(name), TIED[name][1][1]
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
