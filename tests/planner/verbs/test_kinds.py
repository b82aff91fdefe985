"""All kinds of layers through the planner: traced, calibrated, offered, priced, probed; what is left out, and why."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bitplan.planner.costs.candidates import candidates, parse_schemes
from bitplan.planner.costs.table import cost_candidates
from bitplan.planner.graph.bypass import REASON as PAST
from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.layers import architecture_fingerprint, from_json, to_json
from bitplan.planner.graph.trace import trace
from bitplan.planner.views.inspect import layers_text
from bitplan.plans.formats.storage import stored_bytes
from bitplan.plans.layers.modules import module_bytes
from bitplan.plans.layers.opening import opened
from bitplan.plans.layers.simulation import output_changes, variant
from bitplan.plans.layers.swap import find_layer, swap, undo
from bitplan.plans.scheme import KEEP, parse_scheme
from bitplan.sensitivity.calibration.ranges import calibrate
from bitplan.sensitivity.probes.backward import observed
from bitplan.sensitivity.probes.shares import Shares

torch.set_num_threads(1)


class Film(nn.Module):
    """A linear map of a film and a class; the class is looked up twice, once by a table with the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.label, self.again = nn.Embedding(5, 32), nn.Embedding(5, 32)
        self.again.weight = self.label.weight
        self.film = nn.Conv3d(1, 32, (1, 3, 3), stride=(1, 2, 1), padding="valid")
        self.sound = nn.Conv1d(32, 32, 3, padding=1)
        self.mix = nn.Linear(32, 32)

    def forward(self, film: Tensor, label: Tensor) -> Tensor:
        x = self.film(film).flatten(2) + (self.label(label) + 2 * self.again(label))[..., None]
        return self.mix(self.sound(x).mT)


@pytest.fixture
def film() -> Film:
    torch.manual_seed(0)
    return Film().eval()


def inputs(rows: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 1, 2, 5, 4, generator=torch.Generator().manual_seed(rows)), torch.arange(rows) % 5


def test_the_graph_of_all_kinds(film):
    graph = trace({"net": film}, lambda: film(*inputs()))
    kinds = {name.removeprefix("net."): layer.kind for name, layer in graph.by_address.items()}
    assert kinds == {"film": "conv3d", "label": "embedding", "again": "embedding", "sound": "conv1d", "mix": "linear"}
    geometry = graph.by_address["net.film"].geometry
    assert (geometry.stride, geometry.padding, geometry.dilation) == ((1, 2, 1), "valid", (1, 1, 1))
    assert graph.by_address["net.sound"].geometry.padding == (1,)
    macs = {name.removeprefix("net."): layer.macs for name, layer in graph.by_address.items()}
    assert macs == {"film": 2 * 32 * 8 * 9, "label": 0, "again": 0, "sound": 2 * 32 * 8 * 96, "mix": 2 * 8 * 32 * 32}
    label = graph.by_address["net.label"]
    assert (label.weight, label.bias, label.parameters, label.geometry) == ((5, 32), False, 160, None)
    assert graph.tied == (("net.label", "net.again"),) and graph.shared_inputs == () and graph.unused == ()
    assert ("net.label", "net.sound") in graph.edges and ("net.film", "net.sound") in graph.edges
    assert from_json(json.loads(json.dumps(to_json(graph)))) == graph
    assert "reasons" not in to_json(graph)
    first = fingerprint({"net": film}, graph)
    film.label.weight.data[1, 1] += 1
    assert fingerprint({"net": film}, graph) != first
    assert "kinds: embedding 2, conv3d 1, conv1d 1, linear 1" in layers_text(graph)


def test_candidates_and_what_they_cost(film):
    parts = {"net": film}
    graph = trace(parts, lambda: film(*inputs()))
    modules = {name: find_layer(parts, name) for name in graph.by_address}
    seen = calibrate(modules, lambda: film(*inputs()))
    assert seen["net.label"].absmax == 0 and seen["net.label"].samples == 2 and seen["net.film"].absmax > 0
    offered = candidates(graph, modules, parse_schemes(("w8a8", "w4a16", "w3g32ma8", "w8a8t+first", "w2za16")), seen)
    by_layer = {
        name: [str(c.scheme) for c in offered if c.layer == f"net.{name}"] for name in ("label", "sound", "film")
    }
    assert by_layer == {
        "label": ["keep", "w8a16", "w4a16", "w2za16"],
        "sound": ["keep", "w8a8", "w4a16", "w3g32ma8", "w2za16"],
        "film": ["keep", "w8a8", "w4a16", "w2za16"],
    }
    assert not any(c.simulated for c in offered)
    kernels = set()
    for cost in cost_candidates(offered, graph, modules):
        module, scheme = modules[cost.layer], parse_scheme(cost.scheme)
        assert cost.bytes == stored_bytes(module.weight.shape, scheme.weight)
        kernels.add((graph.by_address[cost.layer].kind, cost.kernel))
    assert ("embedding", "lookup") in kernels and ("conv3d", "cpu_int8") in kernels
    assert ("conv1d", "cpu_weight_only") in kernels


def test_bytes_of_a_swapped_model_are_those_of_its_tensors(film):
    full, biases = module_bytes(film), sum(layer.bias.nbytes for layer in (film.film, film.sound, film.mix))
    texts = {
        "net.label": "w3za16",
        "net.again": "w3za16",
        "net.film": "w4a8",
        "net.sound": "w2g64za8",
        "net.mix": "w6a8",
    }
    schemes = {name: parse_scheme(text) for name, text in texts.items()}
    shapes = {name: find_layer({"net": film}, name).weight.shape for name in schemes}
    out = film(*inputs())
    done = swap({"net": film}, schemes)
    assert module_bytes(film) == biases + sum(stored_bytes(shapes[n], s.weight) for n, s in schemes.items())
    assert not torch.equal(film(*inputs()), out)
    undo(done)
    assert torch.equal(film(*inputs()), out) and module_bytes(film) == full


def test_probes_of_a_linear_model_are_exact(film):
    """The gradient times each layer's own change is the change of the output, for every kind."""
    parts, (copies, rows) = {"net": film.requires_grad_(False)}, (2, 3)
    layers = {name: find_layer(parts, f"net.{name}") for name in ("label", "again", "film", "sound", "mix")}
    x, label = inputs(rows)
    v = torch.randn(copies * rows, 8, 32)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    shares = Shares(rows, None, frozenset())
    refused: set[str] = set()
    take = lambda name, x, g: found.update({name: (x, g)})  # noqa: E731
    with torch.enable_grad(), observed(layers, copies, shares, take, refused.add):
        film(x.repeat(copies, 1, 1, 1, 1), label.repeat(copies)).backward(v)
    assert found.keys() == layers.keys() and not refused
    scheme = parse_scheme("w4a16")
    for name, (seen, g) in found.items():
        ((_, dy),) = output_changes(layers[name], seen, [(scheme, None)], {})
        told = (g.view(copies, *dy.shape) * dy).flatten(1).sum(1)
        with variant(parts, f"net.{name}", scheme), torch.no_grad():
            changed = film(x, label)
        real = (v.view(copies, rows, 8, 32) * (changed - film(x, label))).flatten(1).sum(1)
        torch.testing.assert_close(told, real, rtol=1e-3, atol=1e-4)


class Past(nn.Module):
    """The table is asked for rows and multiplied by, as language models do; `only` is multiplied by alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.only = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.mix(self.table(words))
        self.mix.weight.detach(), self.mix.weight.to("meta"), self.mix.weight.dtype  # noqa: B018
        return F.linear(F.linear(x, self.only.weight), self.table.weight)


def test_a_weight_used_past_its_call_is_not_planned():
    net = Past().eval()
    graph = trace({"net": net}, lambda: net(torch.arange(3)))
    assert list(graph.by_address) == ["net.mix"]
    assert graph.unused == ("net.table", "net.only") and dict(graph.reasons) == dict.fromkeys(graph.unused, PAST)
    assert from_json(json.loads(json.dumps(to_json(graph)))) == graph
    assert f"not planned: net.table and 1 more: {PAST}" in layers_text(graph)


def test_what_flows_by_an_unplanned_layer_is_told():
    first, past, last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def run() -> None:
        last(past(first(torch.ones(1, 4)))) @ past.weight

    graph = trace({"net": nn.ModuleList([first, past, last])}, run)
    assert graph.edges == (("net.0", "net.2"),) and graph.unused == ("net.1",)


def test_weights_in_one_memory_are_told_apart():
    pool = nn.Parameter(torch.ones(12, 4))
    a, b, c = (nn.Linear(4, 4, bias=False) for _ in range(3))
    for i, layer in enumerate((a, b, c)):
        layer.weight = nn.Parameter(pool.data[4 * i : 4 * i + 4])
    graph = trace({"a": a, "b": b, "c": c}, lambda: F.linear(c(b(a(torch.ones(1, 4)))), b.weight))
    assert list(graph.by_address) == ["a", "c"] and graph.reasons == (("b", PAST),)


def test_subclasses_and_odd_embeddings_stay_float():
    class Causal(nn.Conv1d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(F.pad(input, (2, 0)))

    net = nn.Sequential(nn.Embedding(5, 4, max_norm=1.0), Causal(3, 4, 3), nn.Conv1d(4, 4, 1))
    graph = trace({"net": net}, lambda: net(torch.arange(3)[None]))
    assert list(graph.by_address) == ["net.2"]
    assert [name for name, _ in graph.reasons] == ["net.0", "net.1"]
    assert "max_norm" in dict(graph.reasons)["net.0"] and "Causal has a forward" in dict(graph.reasons)["net.1"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.proj(x))


class OwnAttention(nn.MultiheadAttention):
    pass


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("opens", [True, False])
def test_attention_is_planned_and_a_subclass_of_it_listed(opens: bool, mode: Callable[[], object]):
    """Also where torch runs the whole block as one operation."""
    torch.manual_seed(0)
    net, x = Block().eval(), torch.randn(2, 3, 8)
    net.layer.self_attn.__class__ = nn.MultiheadAttention if opens else OwnAttention
    parts = {"net": net}
    with mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = trace(parts, lambda: net(x))
        reasons = dict(graph.reasons)
        if opens:
            assert not reasons and sum("self_attn" in name for name in graph.by_address) == 4
        else:
            assert "OwnAttention is a subclass" in reasons["net.layer.self_attn"]
            assert reasons["net.layer.self_attn.out_proj"] == PAST and len(graph.layers) == 3
        full, scheme = net(x), parse_scheme("w3a16")
        for name in graph.by_address:
            with opened(parts), variant(parts, name, scheme):
                alone = net(x)
            done = swap(parts, {name: scheme}, real=False)
            torch.testing.assert_close(net(x), alone, rtol=1e-4, atol=1e-5)
            assert float((alone - full).abs().max()) > 1e-3
            undo(done)


def test_a_projection_past_its_module_in_diffusers_stays_float():
    from diffusers.models.embeddings import HunyuanDiTAttentionPool

    pool = HunyuanDiTAttentionPool(5, 8, 2).eval()
    head = nn.Linear(8, 8)
    graph = trace({"pool": pool, "head": head}, lambda: head(pool(torch.randn(2, 5, 8))))
    assert list(graph.by_address) == ["head"]
    assert {name for name, why in graph.reasons if why == PAST} == {f"pool.{x}_proj" for x in "qkvc"}


def test_a_fingerprint_of_the_present_kinds_is_the_one_that_plans_hold():
    """As older versions wrote it: plans and profiles name it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(64, 5, bias=False))
    graph = trace({"net": net}, lambda: net(torch.ones(1, 3, 8, 8)))
    assert architecture_fingerprint(graph) == "b4200aae2b8458d0a9ec6a80fb23c0e7b23fdded09fedbc348b06e9f13b0d545"
    assert {KEEP} == set(parse_schemes(()))
