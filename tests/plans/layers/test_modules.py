from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from bitplan.plans.formats.storage import FormatError, stored_bytes
from bitplan.plans.inputs.base import ActivationError
from bitplan.plans.kernels import REFERENCE, KernelError, choose_kernel, geometry_of
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers import modules
from bitplan.plans.layers.modules import (
    PACKED,
    bias_of,
    empty_module,
    kind_of,
    module_bytes,
    quantize_module,
    refusal_of,
    weight_bytes,
)
from bitplan.plans.layers.stored import Stored, stored_names, stored_tensors, without_compute
from bitplan.plans.numerics import range_tensor
from bitplan.plans.scheme import EXAMPLES, parse_scheme

torch.set_num_threads(1)
RANGES = range_tensor({"tensor": 2.1, "first": 3.3})
LAYERS = {
    "linear": (lambda: nn.Linear(70, 9), torch.randn(2, 3, 70)),
    "nobias": (lambda: nn.Linear(8, 3, bias=False), torch.randn(1, 1, 8)),
    "conv2d": (lambda: nn.Conv2d(5, 4, 3, stride=2, padding=1), torch.randn(2, 5, 7, 6)),
    "conv1d": (lambda: nn.Conv1d(5, 4, 3, padding="same"), torch.randn(2, 5, 9)),
    "conv3d": (lambda: nn.Conv3d(5, 4, (1, 3, 2), stride=(1, 2, 1), bias=False), torch.randn(2, 5, 3, 5, 4)),
    "embedding": (lambda: nn.Embedding(9, 70, padding_idx=2), torch.tensor([[0, 8, 2], [5, 5, 1]])),
}
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
CASES = [
    (text, name)
    for text in EXAMPLES
    if text != "keep"
    for name in LAYERS
    if not KINDS.get(name, KINDS["linear"]).refuses(parse_scheme(text))
]


def make(text: str, name: str):
    layer, x = LAYERS[name][0](), LAYERS[name][1]
    scheme = parse_scheme(text)
    kernel = choose_kernel(scheme, kind_of(layer), real_only=False, geometry=geometry_of(layer))
    return layer, quantize_module(layer, scheme, kernel, RANGES), x


@pytest.mark.parametrize(("text", "name"), CASES)
def test_it_stands_in_for_the_float_layer(text, name):
    layer, made, x = make(text, name)
    assert isinstance(made, type(layer)) and type(made) is PACKED[kind_of(layer)]
    bias = bias_of(layer)
    assert made.bias is bias and made.weight.shape == layer.weight.shape
    assert text in repr(made) and made.kernel.name in repr(made)
    assert f"{layer.extra_repr()}, scheme=" in repr(made)
    assert weight_bytes(made) == stored_bytes(layer.weight.shape, made.scheme.weight)
    assert weight_bytes(layer) == layer.weight.numel() * 4
    reference = REFERENCE.run(x, replace(made.held, bias=bias))
    torch.testing.assert_close(made(x), reference, rtol=1e-4, atol=1e-4)
    held = weight_bytes(made) + (0 if bias is None else bias.nbytes)
    assert module_bytes(made) == held + (made.input_range.nbytes if made.scheme.inputs.static else 0)


def kept(layer):
    """Whether all that the layer stores is neither cast nor trained from here on."""
    return all(isinstance(layer.get_parameter(name), Stored) for name in stored_names(layer.scheme))


@pytest.mark.parametrize(("text", "name"), CASES)
def test_copies_pickles_and_state_give_the_same_bits(text, name):
    layer, made, x = make(text, name)
    out = made(x)
    twin = copy.deepcopy(made)
    assert torch.equal(twin(x), out) and kept(twin) and twin.codes is not made.codes
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again(x), out) and kept(again)
    with torch.no_grad():
        layer.weight.mul_(3).add_(1)
    other = quantize_module(layer, made.scheme, made.kernel, range_tensor({"tensor": 9.0, "first": 9.0}))
    assert not torch.equal(other(x), out)
    state = made.state_dict()
    names = {"compute", "codes", "scale", "zero", "input_range", "bias"}
    assert {"codes", "scale"} <= set(state) <= names and "weight" not in state
    other.load_state_dict(without_compute(state))  # as files have it
    assert torch.equal(other(x), out) and kept(other)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("text", ["w4g64za8t", "fp8a16", "w3a8"])
def test_casts_leave_codes_and_scales_alone(text, name):
    if name == "embedding" and text != "fp8a16":
        return
    _, made, x = make(text, name)
    before = {key: value.clone() for key, value in without_compute(made.state_dict()).items() if key != "bias"}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        made.to(dtype)
        given = x.to(dtype) if x.is_floating_point() else x
        assert made.weight.dtype == dtype and made(given).dtype == dtype
        assert made.bias is None or made.bias.dtype == dtype
        assert next(made.parameters()).dtype == dtype  # which pipelines read as the type of a module's inputs
        for key, value in before.items():
            held = made.state_dict()[key]
            assert held.dtype == value.dtype and torch.equal(held.view(torch.uint8), value.view(torch.uint8))


def test_moves_reach_what_is_stored():
    _, made, _ = make("w4g64za8t", "linear")
    codes = made.codes
    assert made.to("cpu").codes is codes  # offloading by streams tells tensors by their identity
    made.to("meta")
    assert {tensor.device.type for tensor in (*made.parameters(), *made.buffers())} == {"meta"} and kept(made)
    assert kept(made.to_empty(device="cpu"))


@pytest.mark.parametrize("text", ["w8a8", "fp8a16", "w4g64za8t"])
def test_what_is_stored_asks_for_no_gradient(text):
    _, made, x = make(text, "linear")
    out = made(x)
    made.requires_grad_(True)
    assert [name for name, parameter in made.named_parameters() if parameter.requires_grad] == ["bias"]
    assert torch.equal(made(x), out)
    assert not any(
        tensor.is_floating_point() for name, tensor in made.named_parameters() if name not in ("bias", "compute")
    )


def test_the_weight_is_read_only():
    _, made, _ = make("w8a8", "linear")
    with pytest.raises((KeyError, AttributeError)):
        made.weight = nn.Parameter(torch.zeros(9, 70))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_an_unbatched_picture(name):
    _, made, x = make("w8a8", name)
    assert torch.equal(made(x[0]), made(x[:1])[0])


def test_refusals():
    scheme = parse_scheme("w8a8")
    kernel = choose_kernel(scheme, "linear")
    with pytest.raises(KernelError, match="GroupNorm"):
        quantize_module(nn.GroupNorm(1, 4), scheme, kernel)
    with pytest.raises(KernelError, match="groups"):
        quantize_module(nn.Conv2d(4, 4, 1, groups=2), scheme, kernel)
    with pytest.raises(KernelError, match="a16"):
        quantize_module(nn.Linear(4, 4), parse_scheme("w8a16"), kernel)
    with pytest.raises(ActivationError, match="w8a8t needs"):
        quantize_module(nn.Linear(4, 4), parse_scheme("w8a8t"), kernel)
    made = quantize_module(nn.Linear(4, 4), scheme, kernel)
    assert kind_of(made) is None and refusal_of(made) == "it is packed already"


def test_an_embedding_keeps_its_zero_row_and_refuses_what_rounds_inputs():
    for text in ("w4a16", "w4za16", "w3g64zma16", "fp8a16"):
        layer, made, x = make(text, "embedding")
        assert float(made(torch.tensor(2)).detach().abs().max()) == 0
        assert torch.equal(made(x), made.weight[x]) and made(x).dtype == torch.float32
    with pytest.raises(KernelError, match="row numbers"):
        quantize_module(nn.Embedding(4, 4), parse_scheme("w8a8"), REFERENCE)


@pytest.mark.parametrize(("text", "name"), CASES)
def test_an_empty_layer_takes_what_was_stored(text, name):
    layer, made, x = make(text, name)
    hollow = empty_module(layer.to("meta"), made.scheme, made.kernel.real)
    state = made.state_dict()
    assert {key: (value.shape, value.dtype) for key, value in without_compute(hollow.state_dict()).items()} == {
        key: (value.shape, value.dtype) for key, value in without_compute(state).items()
    }
    assert all(value.is_meta for value in without_compute(hollow.state_dict()).values())
    hollow.load_state_dict(state, assign=True)
    assert torch.equal(hollow(x), made(x)) and kept(hollow) and hollow.kernel is made.kernel


@pytest.mark.parametrize(("text", "name"), CASES)
def test_what_is_stored_of_a_weight_is_what_the_layer_holds(text, name):
    layer, made, _ = make(text, name)
    stored = stored_tensors(layer.weight, made.scheme, RANGES)
    held = {key: value for key, value in without_compute(made.state_dict()).items() if key != "bias"}
    assert tuple(stored) == stored_names(made.scheme) and stored.keys() == held.keys()
    for key, value in stored.items():
        assert value.dtype == held[key].dtype and torch.equal(value.view(torch.uint8), held[key].view(torch.uint8))


def test_keep_has_no_empty_layer():
    with pytest.raises(FormatError, match="leave this layer as it is"):
        empty_module(nn.Linear(4, 4), parse_scheme("keep"))
    with pytest.raises(KernelError, match="only nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding can"):
        empty_module(nn.LayerNorm(4), parse_scheme("w8a8"))


@pytest.mark.parametrize("name", LAYERS)
def test_others_of_its_type_are_float(name):
    """LoRA makes the layers beside a convolution so."""
    layer, made, x = make("w8a16", name)
    arguments = (5, 4, 3) if name in CONVOLUTIONS else (8, 3)
    assert type(type(made)(*arguments)) is type(layer)


def test_a_layer_runs_where_its_codes_are(monkeypatch):
    _, made, x = make("w8a8", "linear")
    out = made(x)
    asked = []

    def choose(scheme, kind, device, real, geometry):
        asked.append((str(scheme), kind, device.type, real))
        return REFERENCE

    monkeypatch.setattr("bitplan.plans.layers.modules.choose_kernel", choose)
    made.to("meta")
    assert made.kernel is made.kernel is REFERENCE and asked == [("w8a8", "linear", "meta", True)]
    made._parameters["codes"] = Stored(torch.zeros(9, 70, dtype=torch.uint8))  # as offloading does, past `.to`
    assert made.kernel.name == "cpu_int8" and len(asked) == 1
    assert out.shape == (2, 3, 9)
    _, simulated, _ = make("w4a4", "linear")
    assert simulated.to("meta").kernel is REFERENCE and len(asked) == 1


@pytest.mark.parametrize(("text", "real"), [("w8a8", True), ("w4a16", True), ("w4a4", False), ("w4a16", False)])
def test_gradients_are_refused_where_they_are_asked_for(text, real):
    layer, x = nn.Linear(70, 9), torch.randn(3, 70, requires_grad=True)
    scheme = parse_scheme(text)
    made = quantize_module(layer, scheme, choose_kernel(scheme, "linear") if real else REFERENCE)
    out = made(x)
    assert out.requires_grad
    with torch.no_grad():
        assert not made(x).requires_grad
    if real or text == "w4a4":
        with pytest.raises(KernelError, match="no gradient"):
            out.sum().backward()
    else:  # a simulation that rounds no input is plain torch
        out.sum().backward()
        torch.testing.assert_close(x.grad, made.weight.sum(0).expand(3, 70))


def test_a_weight_refuses_writes_and_is_a_plain_tensor_otherwise():
    _, made, _ = make("w8a8", "linear")
    weight = made.weight
    writes = (weight.mul_, weight.__iadd__, weight.copy_, lambda value: weight.__setitem__(0, value), weight.data.mul_)
    for write in writes:
        with pytest.raises(KernelError, match="cannot be written to"):
            write(torch.ones(()))
    with pytest.raises(KernelError, match="cannot be written to"):
        weight.data += 1
    assert type(weight + 1) is type(weight.detach()) is type(copy.deepcopy(weight)) is torch.Tensor
    assert torch.equal(torch.zeros(9, 70).copy_(made.weight), made.weight)
    assert weight.tolist() == weight.data.numpy().tolist() and torch.equal(torch.cat([weight, weight])[9:], made.weight)


@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_is_computed_where_its_numbers_are_used(name, monkeypatch):
    """LoRA loaders ask each layer some twenty times for the shape, the type and the device."""
    text, times = "w8a16" if name == "embedding" else "w4g64a8", []
    _, made, _ = make(text, name)
    expected, dequantize = made.weight.clone(), modules.dequantize
    monkeypatch.setattr(modules, "dequantize", lambda packed: times.append(packed) or dequantize(packed))
    weight = made.weight
    asked = [(w.shape, w.size(0), w.dim(), w.ndim, w.numel(), w.dtype, w.device, w.is_meta, w.data.requires_grad)
             for w in (weight, expected)]  # fmt: skip
    assert asked[0] == asked[1] and not times
    assert torch.equal(weight, expected) and len(times) == 1
    assert made.to(torch.bfloat16).weight.dtype == torch.bfloat16 and made.to("meta").weight.is_meta
    assert len(times) == 1
