from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from bitplan.planner.graph.fingerprint import fingerprint
from bitplan.planner.graph.flow import Marks
from bitplan.planner.graph.layers import (
    GraphError,
    architecture_fingerprint,
    from_json,
    to_json,
    total_macs,
    total_parameters,
)
from bitplan.planner.graph.trace import trace
from bitplan.plans.layers.addresses import AddressError, module_at

torch.set_num_threads(1)


class Scaled(nn.Linear):
    """A subclass with a forward of its own, as adapters and diffusers have."""

    def forward(self, input: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return super().forward(input) * scale


class Toy(nn.Module):
    """stem -> q, k, v (one input) -> out + residual -> cat with side -> head twice (tied with twin); spare unused."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=1)
        self.q, self.k, self.v = Scaled(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.spare = nn.Linear(4, 4)
        self.out = nn.Linear(4, 4)
        self.side = nn.Linear(4, 4)
        self.twin = nn.Linear(8, 8)
        self.head = nn.Linear(8, 8)
        self.head.weight = self.twin.weight
        self.depth = nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False)
        self.alias = self.depth

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        x = self.stem(picture).flatten(2).transpose(1, 2)
        q, k, v = self.q(input=x, scale=0.5), self.k(x), self.v(x)
        attended = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        y = self.out(attended)
        y += x
        buffer = torch.empty(*y.shape[:2], 8)
        buffer[..., :4] = y
        buffer[..., 4:] = self.side(torch.zeros_like(y))
        z = self.twin(self.head(F.layer_norm(buffer, (8,))))
        side = int(z.shape[1] ** 0.5)
        return self.depth(z.transpose(1, 2).unflatten(2, (side, side)))


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def run(model: nn.Module, batch: int = 2):
    return lambda: model(torch.ones(batch, 3, 8, 8))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_toy_graph(toy, mode):
    with mode():
        graph = trace({"toy": toy}, run(toy))
    names = [name.removeprefix("toy.") for name in graph.by_address]
    assert names == ["stem", "k", "v", "out", "side", "head", "twin", "depth"]
    assert {(a.removeprefix("toy."), b.removeprefix("toy.")) for a, b in graph.flow.edges} == {
        ("stem", "k"), ("stem", "v"), ("stem", "out"), ("k", "out"), ("v", "out"),
        ("out", "head"), ("stem", "head"), ("side", "head"), ("head", "twin"), ("twin", "depth"),
    }  # fmt: skip
    assert graph.shared_inputs == (("toy.k", "toy.v"),)
    assert graph.tied == (("toy.head", "toy.twin"),)
    assert graph.unused == ("toy.spare", "toy.q")
    assert graph.reasons == (("toy.q", "Scaled has a forward of its own, which may do anything with the weight"),)
    assert graph.flow.nodes["toy.k"]["layer"] is graph.by_address["toy.k"]


def test_toy_layers(toy):
    graph = trace({"toy": toy}, lambda: [run(toy)(), run(toy)(), run(toy, 5)()])
    stem, k, depth = (graph.by_address[f"toy.{name}"] for name in ("stem", "k", "depth"))
    assert (stem.kind, stem.weight, stem.bias, stem.parameters) == ("conv2d", (4, 3, 3, 3), True, 112)
    assert (stem.geometry.stride, stem.geometry.padding, stem.geometry.groups) == ((2, 2), (1, 1), 1)
    assert [(c.input, c.output, c.macs, c.count) for c in stem.calls] == [
        ((2, 3, 8, 8), (2, 4, 4, 4), 2 * 4 * 16 * 27, 2),
        ((5, 3, 8, 8), (5, 4, 4, 4), 5 * 4 * 16 * 27, 1),
    ]
    assert (stem.call_count, stem.macs) == (3, 9 * 4 * 16 * 27)
    assert (k.kind, k.bias, k.parameters, k.geometry, k.calls[0].macs) == ("linear", False, 16, None, 2 * 16 * 16)
    assert (depth.geometry.padding, depth.geometry.groups, depth.aliases) == ("same", 8, ("toy.alias",))
    assert depth.calls[0].macs == 2 * 8 * 16 * 9
    planned = {id(p): p for name in graph.by_address for p in module_at({"toy": toy}, name).parameters()}
    assert total_parameters(graph) == sum(p.numel() for p in planned.values())
    assert total_macs(graph) == sum(layer.macs for layer in graph.layers)


def test_json_round_trip(toy):
    graph = trace({"toy": toy}, run(toy))
    again = from_json(json.loads(json.dumps(to_json(graph))))
    assert again == graph
    assert list(again.flow.edges) == list(graph.flow.edges)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("layers"),
        lambda d: d["layers"][0].pop("calls"),
        lambda d: d["layers"][0].update(kind="conv4d"),
        lambda d: d["layers"][0].update(colour="red"),
        lambda d: d["layers"][0].update(role="inner"),
        lambda d: d["parts"][0].pop("inputs"),
        lambda d: d["layers"].append(d["layers"][0]),
        lambda d: d["edges"].append(["toy.stem", "nowhere"]),
        lambda d: d["edges"].append(["toy.stem"]),
        lambda d: d.update(tied=3),
    ],
)
def test_damaged_json(toy, damage):
    data = json.loads(json.dumps(to_json(trace({"toy": toy}, run(toy)))))
    damage(data)
    with pytest.raises(GraphError, match="profile the model again"):
        from_json(data)


def test_equal_values_in_other_memory_are_not_shared():
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)

    def use() -> None:
        for layer in (a, b, a, b):
            layer(torch.ones(1000, 4))  # freed at once, so the allocator hands the same address out again

    assert trace({"a": a, "b": b}, use).shared_inputs == ()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_write_between_two_reads_ends_sharing(mode):
    a, b, c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def use() -> None:
        x = torch.ones(2, 4)
        a(x), b(x)
        x[:1].mul_(2)
        c(x)

    with mode():
        assert trace({"a": a, "b": b, "c": c}, use).shared_inputs == (("a", "b"),)


def test_sharing_links_through_common_layers_and_components():
    a, b, c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def use() -> None:
        x, y = torch.ones(2, 4), torch.ones(2, 4)
        a(x), b(x), b(y), c(y)

    assert trace({"a": a, "b": b, "c": c}, use).shared_inputs == (("a", "b", "c"),)


def test_views_of_one_weight_are_tied_only_where_they_start_together():
    pool = nn.Parameter(torch.ones(8, 4))
    a, b, c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    a.weight, b.weight, c.weight = (nn.Parameter(pool.data[i : i + 4]) for i in (0, 4, 0))
    graph = trace({"a": a, "b": b, "c": c}, lambda: c(b(a(torch.ones(1, 4)))))
    assert graph.tied == (("a", "c"),)
    assert total_parameters(graph) == 2 * 16 + 3 * 4


def test_a_loop_over_steps_closes_a_cycle():
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)

    def use() -> None:
        x = torch.ones(1, 4)
        for _ in range(3):
            x = x - 0.1 * b(a(x).relu_())

    graph = trace({"net": nn.ModuleList([a, b])}, use)
    assert graph.edges == (("net.0", "net.1"), ("net.1", "net.0"))
    assert graph.by_address["net.0"].call_count == 3


def test_nothing_stays_behind_when_the_run_fails(toy):
    def fail() -> None:
        run(toy)()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trace({"toy": toy}, fail)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in toy.modules())
    assert not torch.utils._python_dispatch._get_current_dispatch_mode()


def test_memory_of_marks_is_bounded():
    marks = Marks(limit=16)
    keep = [torch.ones(1) for _ in range(10)]
    serials = {marks.of(t).serial for t in keep}
    for _ in range(20_000):
        marks.of(torch.ones(1))
    assert len(marks.table) <= 4096
    assert {marks.of(t).serial for t in keep} == serials


def test_nothing_to_plan(toy):
    with pytest.raises(GraphError, match="none of nn.Linear, .*nn.Embedding inside"):
        trace({"norm": nn.LayerNorm(4)}, lambda: None)
    with pytest.raises(GraphError, match="none of the 9 layers of toy"):
        trace({"toy": toy}, lambda: None)
    with pytest.raises(AddressError, match=r"toy\.nose"):
        module_at({"toy": toy}, "toy.nose")
    with pytest.raises(AddressError, match=r"pip\.q"):
        module_at({"toy": toy}, "pip.q")


def test_fingerprints(toy):
    graph = trace({"toy": toy}, run(toy))
    first = fingerprint({"toy": toy}, graph)
    other = trace({"toy": toy}, run(toy, 7))
    assert fingerprint({"toy": copy.deepcopy(toy)}, other) == first
    assert fingerprint({"toy": copy.deepcopy(toy).to(memory_format=torch.channels_last)}, graph) == first
    half = copy.deepcopy(toy).half()
    assert fingerprint({"toy": half}, graph) == fingerprint({"toy": copy.deepcopy(half).float()}, graph) != first
    for name in ("v.weight", "out.bias", "depth.weight"):
        tuned = copy.deepcopy(toy)
        value = tuned.get_parameter(name).data.flatten()
        value[-1] = torch.nextafter(value[-1], torch.tensor(9.0))
        tuned.get_parameter(name).data = value.view_as(tuned.get_parameter(name))
        assert fingerprint({"toy": tuned}, graph) != first
    tuned = copy.deepcopy(toy)
    tuned.spare.weight.data.zero_()
    assert fingerprint({"toy": tuned}, graph) == first


def test_architecture_fingerprint_sees_geometry_and_not_the_run(toy):
    first = architecture_fingerprint(trace({"toy": toy}, run(toy)))
    other = Toy()
    assert architecture_fingerprint(trace({"toy": other}, run(other, 3))) == first
    other.stem.stride = (4, 4)
    assert architecture_fingerprint(trace({"toy": other}, run(other))) != first


@pytest.mark.parametrize("name", ["k.weight", "stem.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_unsound_weights_are_named(toy, name, value):
    graph = trace({"toy": toy}, run(toy))
    toy.get_parameter(name).data.flatten()[1] = value
    with pytest.raises(GraphError, match=rf"toy\.{name}: 1 of \d+ values"):
        fingerprint({"toy": toy}, graph)
