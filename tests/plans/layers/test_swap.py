from __future__ import annotations

import gc
import re
import weakref

import pytest
import torch
from torch import nn

from bitplan.plans.formats.base import FormatError
from bitplan.plans.inputs.base import ActivationError
from bitplan.plans.kernels import KernelError
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers import swap as swap_module
from bitplan.plans.layers.modules import QuantLinear, kind_of, quantize_module, weight_bytes
from bitplan.plans.layers.simulation import variant
from bitplan.plans.layers.swap import SwapError, layer_addresses, redo, swap, undo
from bitplan.plans.numerics import range_tensor
from bitplan.plans.scheme import EXAMPLES, KEEP, parse_scheme

torch.set_num_threads(1)
SCALES = {"net.attn.to_q": range_tensor({"tensor": 2.0, "first": 3.0})}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.attn = nn.ModuleDict({"to_q": nn.Linear(8, 8), "to_k": nn.Linear(8, 8)})
        self.norm = nn.LayerNorm(8)
        self.words, self.film, self.sound = nn.Embedding(5, 8), nn.Conv3d(1, 2, 1), nn.Conv1d(8, 8, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.SiLU())])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.words(torch.arange(36) % 5) + self.film(x[:, None]).mean()
        tokens = tokens + self.sound(tokens.mT).mT
        return self.blocks[0](self.norm(self.attn["to_q"](tokens) + self.attn["to_k"](input=tokens)))


@pytest.fixture
def net() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"net": Net().eval()}


X = torch.randn(2, 3, 6, 6)
ALL = {
    "net.conv": "w4a8", "net.attn.to_q": "w3g64ma8t+first", "net.attn.to_k": "w4a16", "net.words": "w3za16",
    "net.film": "w8a8", "net.sound": "w4a8", "net.blocks.0.0": "keep",
}  # fmt: skip
MIXED = {address: parse_scheme(text) for address, text in ALL.items()}


def modules(components):
    return [(name, id(module)) for name, module in components["net"].named_modules()]


def test_addresses(net):
    assert layer_addresses(net) == tuple(ALL)


def test_redo_puts_the_same_quantized_modules_back(net):
    done = swap(net, MIXED, SCALES)
    quantized, out = modules(net), net["net"](X)
    undo(done)
    assert modules(net) != quantized
    redo(done)
    assert modules(net) == quantized and torch.equal(net["net"](X), out)


def test_swap_and_undo(net):
    before, out = modules(net), net["net"](X)
    done = swap(net, MIXED, SCALES)
    assert [(layer.address, layer.kernel) for layer in done.layers] == [
        ("net.conv", "cpu_int8"), ("net.attn.to_q", "cpu_int8"), ("net.attn.to_k", "cpu_weight_only"),
        ("net.words", "lookup"), ("net.film", "cpu_int8"), ("net.sound", "cpu_int8"),
    ]  # fmt: skip
    assert isinstance(net["net"].attn["to_q"], QuantLinear) and type(net["net"].blocks[0][0]) is nn.Linear
    assert not torch.equal(net["net"](X), out)
    undo(done)
    undo(done)
    assert modules(net) == before and torch.equal(net["net"](X), out)


def test_real_and_simulated_agree(net):
    done = swap(net, MIXED, SCALES)
    real = net["net"](X)
    undo(done)
    simulated = swap(net, MIXED, SCALES, real=False)
    assert {layer.kernel for layer in simulated.layers} == {"reference"}
    # a rounding of the float sums may move a later code by one, so only near
    torch.testing.assert_close(net["net"](X), real, rtol=0.02, atol=0.02)


def test_fake_takes_what_no_kernel_runs(net):
    schemes = {"net.conv": parse_scheme("w4a4")}
    with pytest.raises(KernelError, match="net.conv: no kernel runs w4a4"):
        swap(net, schemes)
    swap(net, schemes, real=False)
    assert torch.isfinite(net["net"](X)).all()


@pytest.mark.parametrize("keep_originals", [True, False])
def test_float_layers_are_freed_one_by_one(net, keep_originals, monkeypatch):
    alive = [weakref.ref(module.weight) for module in (net["net"].conv, *net["net"].attn.values())]
    mixed = {name: scheme for name, scheme in MIXED.items() if name in list(MIXED)[:3]}
    seen = []

    def watched(*args):
        gc.collect()
        seen.append(sum(ref() is not None for ref in alive))
        return quantize_module(*args)

    monkeypatch.setattr(swap_module, "quantize_module", watched)
    done = swap(net, mixed, SCALES, keep_originals=keep_originals)
    assert seen == ([3, 3, 3] if keep_originals else [3, 2, 1])
    if not keep_originals:
        with pytest.raises(SwapError, match="3 float layers were not kept"):
            undo(done)


@pytest.mark.parametrize("keep_originals", [True, False])
@pytest.mark.parametrize(
    ("schemes", "error", "match"),
    [
        ({"net.atn.to_q": "w8a8"}, SwapError, "did you mean 'net.attn.to_q'"),
        ({"unet.conv": "w8a8"}, SwapError, "did you mean 'net.conv'"),
        ({"net": "w8a8"}, SwapError, "net is a Net"),
        ({"net.norm": "w8a8"}, SwapError, "LayerNorm"),
        ({"net.conv": "w8a8t+first"}, KernelError, "net.conv: .*first token"),
    ],
)
def test_what_is_refused_is_refused_before_the_first_swap(net, schemes, error, match, keep_originals):
    before = modules(net)
    bad = {text: parse_scheme(scheme) for text, scheme in schemes.items()}
    with pytest.raises(error, match=match):
        swap(net, {"net.attn.to_k": parse_scheme("w8a8"), **bad}, keep_originals=keep_originals)
    assert modules(net) == before


def test_no_components_no_layers():
    with pytest.raises(SwapError, match="no layers"):
        swap({}, {"net.conv": parse_scheme("w8a8")})


def test_a_failure_half_way_restores_all(net):
    before = modules(net)
    with pytest.raises(ActivationError, match="net.attn.to_q: w3g64ma8t"):
        swap(net, MIXED)
    assert modules(net) == before
    net["net"].attn["to_k"].weight.data[0, 0] = float("nan")
    with pytest.raises(FormatError, match="net.attn.to_k: 1 of 64"):
        swap(net, MIXED, SCALES)
    assert modules(net) == before


def test_a_swapped_layer_is_not_swapped_again(net):
    swap(net, MIXED, SCALES)
    with pytest.raises(SwapError, match="QuantConv2d.*undo"):
        swap(net, {"net.conv": parse_scheme("w8a8")})


def test_one_module_in_two_places(net):
    net["net"].attn["to_k"] = net["net"].attn["to_q"]
    both = {"net.attn.to_q": parse_scheme("w8a8"), "net.attn.to_k": parse_scheme("w8a8")}
    done = swap(net, both)
    assert len(done.layers) == 1 and net["net"].attn["to_q"] is net["net"].attn["to_k"]
    undo(done)
    assert type(net["net"].attn["to_k"]) is nn.Linear and net["net"].attn["to_q"] is net["net"].attn["to_k"]
    with pytest.raises(SwapError, match="one module with two schemes"):
        swap(net, {**both, "net.attn.to_k": KEEP})


@pytest.mark.parametrize("text", EXAMPLES)
@pytest.mark.parametrize("layer", [name for name in ALL if "blocks" not in name])
def test_a_variant_is_the_simulated_swap(net, text, layer):
    scheme, ranges = parse_scheme(text), range_tensor({"tensor": 2.0, "first": 3.0})
    if why := KINDS[kind_of(net["net"].get_submodule(layer[4:]))].refuses(scheme):
        with pytest.raises(KernelError, match=re.escape(why)), variant(net, layer, scheme, ranges):
            pass
        return
    state, out, cache = modules(net), net["net"](X), {}
    weight = net["net"].get_submodule(layer[4:]).weight
    for _ in range(2):
        with variant(net, layer, scheme, ranges, cache) as module:
            assert module is net["net"].get_submodule(layer[4:])
            inside = net["net"](X)
        assert torch.equal(net["net"](X), out) and modules(net) == state
        assert module.weight is weight and not module._forward_pre_hooks
    done = swap(net, {layer: scheme}, {layer: ranges}, real=False)
    assert torch.equal(inside, net["net"](X))
    undo(done)
    assert len(cache) == (text != "keep")


def test_a_variant_restores_after_an_exception(net):
    out = net["net"](X)
    for inside in (RuntimeError("stop"), KeyboardInterrupt()):
        with pytest.raises(type(inside)), variant(net, "net.conv", parse_scheme("w2a8")):
            raise inside
    with (
        pytest.raises(ActivationError, match="calibrate"),
        variant(net, "net.conv", parse_scheme("w2a8t")),
    ):
        net["net"](X)
    assert torch.equal(net["net"](X), out) and not net["net"].conv._forward_pre_hooks


def test_a_variant_passes_hooks_and_leaves_tied_weights_alone(net):
    net["net"].attn["to_k"].weight = net["net"].attn["to_q"].weight
    seen = []
    net["net"].attn["to_q"].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    net["net"](X)
    with variant(net, "net.attn.to_q", parse_scheme("w2a4")):
        net["net"](X)
        assert net["net"].attn["to_k"].weight is not net["net"].attn["to_q"].weight
    assert len(seen) == 2 and not torch.equal(*seen)
    assert net["net"].attn["to_k"].weight is net["net"].attn["to_q"].weight


def test_bytes_of_the_swapped_layers_are_the_prices(net):
    from bitplan.plans.formats.storage import stored_bytes

    prices = {a: stored_bytes(net["net"].get_submodule(a[4:]).weight.shape, s.weight) for a, s in MIXED.items()}
    swap(net, MIXED, SCALES)
    assert {address: weight_bytes(net["net"].get_submodule(address[4:])) for address in MIXED} == prices
