"""Attentions with projections as layers: the function of torch's; closed again, the very same as before."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitplan.plans.formats.base import FormatError
from bitplan.plans.layers.attention import Attention, AttentionError, PaddedEncoder, refusal
from bitplan.plans.layers.guards import ReadOnly
from bitplan.plans.layers.modules import QuantLinear, module_bytes
from bitplan.plans.layers.opening import closed_in, opened
from bitplan.plans.layers.swap import SwapError, redo, swap, undo
from bitplan.plans.scheme import parse_scheme

torch.set_num_threads(1)
WIDTH, HEADS, BATCH, TOKENS, KEYS = 8, 2, 3, 4, 5


def attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(WIDTH, HEADS, **options).eval()
    for tensor in made.parameters():  # torch begins with biases of 0
        nn.init.normal_(tensor, std=0.3)
    return made


def given(kind: str, batched: bool, batch_first: bool, widths: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v: of one tensor, of two, or of three."""

    def tokens(count: int, width: int) -> Tensor:
        shape = (BATCH, count) if batch_first else (count, BATCH)
        return torch.randn(*(shape if batched else (count,)), width)

    q = tokens(TOKENS, WIDTH)
    if kind == "one":
        return q, q, q
    k = tokens(KEYS, widths[0])
    return (q, k, k) if kind == "two" else (q, k, tokens(KEYS, widths[1]))


def masks(kind: str, batched: bool, keys: int) -> Iterator[dict[str, Tensor]]:
    """The first key is left to all, for else torch says nothing."""
    forbidden, floats = torch.rand(TOKENS, keys) > 0.6, torch.randn(TOKENS, keys)
    every = torch.randn((BATCH if batched else 1) * HEADS, TOKENS, keys)
    padding = torch.rand(*((BATCH, keys) if batched else (keys,))) > 0.6
    forbidden[:, 0], padding[..., 0] = False, False
    yield {}
    if kind == "truth":
        yield from ({"attn_mask": forbidden}, {"key_padding_mask": padding})
        yield {"attn_mask": forbidden, "key_padding_mask": padding}
    else:
        yield from ({"attn_mask": floats}, {"attn_mask": every})
        yield {"attn_mask": every, "key_padding_mask": torch.randn(padding.shape)}


def compare(module: nn.MultiheadAttention, qkv: tuple[Tensor, ...], **options: Any) -> None:
    with torch.enable_grad():  # torch's slow path
        told = module(*qkv, **options)
    with opened({"net": module}):
        assert isinstance(module, Attention)
        made = module(*qkv, **options)
    assert type(module) is nn.MultiheadAttention
    for ours, theirs in zip(made, told, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["truth", "float"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("inputs", ["one", "two", "three", "widths"])
def test_the_function_is_that_of_torch(inputs: str, batched: bool, batch_first: bool, kind: str) -> None:
    widths = (6, 10) if inputs == "widths" else (WIDTH, WIDTH)
    own: dict[str, Any] = {"kdim": 6, "vdim": 10} if inputs == "widths" else {}
    for bias, bias_kv, zero in product([True, False], repeat=3):
        module = attention(bias=bias, add_bias_kv=bias_kv, add_zero_attn=zero, batch_first=batch_first, **own)
        qkv = given("three" if inputs == "widths" else inputs, batched, batch_first, widths)
        keys = TOKENS if inputs == "one" else KEYS
        for mask in masks(kind, batched, keys):
            compare(module, qkv, **mask)
            compare(module, qkv, **mask, average_attn_weights=False)
            compare(module, qkv, **mask, need_weights=False)


def test_causal_masks_dropout_and_what_is_refused() -> None:
    module, x = attention(batch_first=True, dropout=0.5), torch.randn(BATCH, TOKENS, WIDTH)
    mask = nn.Transformer.generate_square_subsequent_mask(TOKENS)
    for need, padding in product([True, False], [None, torch.zeros(BATCH, TOKENS)]):
        compare(module, (x, x, x), attn_mask=mask, is_causal=True, need_weights=need, key_padding_mask=padding)
    told = []
    for mode in (nullcontext(), opened({"net": module.train()})):
        torch.manual_seed(3)
        with mode:
            told.append(module(x, x, x)[0])
    torch.testing.assert_close(*told)
    nested = torch.nested.nested_tensor([x[0], x[1]])
    with opened({"net": module.eval()}):
        for bad in ({"is_causal": True}, {"attn_mask": mask[:, :2]}, {"attn_mask": mask[:1]},
                    {"attn_mask": torch.ones(TOKENS, TOKENS, dtype=torch.int32)},
                    {"key_padding_mask": torch.zeros(1, TOKENS)}):  # fmt: skip
            with pytest.raises(AttentionError):
                module(x, x, x, **bad)
        with pytest.raises(AttentionError, match="no nested tensors"):
            module(nested, nested, nested)


@pytest.mark.parametrize("own", [{}, {"kdim": 6, "vdim": 6}])
def test_gradients(own: dict[str, int]) -> None:
    module = attention(batch_first=True, **own)
    q = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    k = torch.randn(BATCH, KEYS, own.get("kdim", WIDTH), requires_grad=True)
    names = ("in_proj_weight",) if not own else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    weights = [getattr(module, name) for name in (*names, "in_proj_bias")] + [module.out_proj.weight]
    told = torch.autograd.grad(module(q, k, k)[0].square().sum(), [q, k, *weights])
    with opened({"net": module}):
        apart = [getattr(module, f"{name}_proj").weight for name in "qkv"]
        biases = [getattr(module, f"{name}_proj").bias for name in "qkv"]
        ends = [q, k, *apart, *biases, module.out_proj.weight]
        gq, gk, *rest = torch.autograd.grad(module(q, k, k)[0].square().sum(), ends)
        made = [gq, gk, *(rest[:3] if own else [torch.cat(rest[:3])]), torch.cat(rest[3:6]), rest[6]]
    for ours, theirs in zip(made, told, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_opening_shares_memory_and_closing_gives_the_same_back() -> None:
    module = attention(add_bias_kv=True).requires_grad_(False)
    tensors, keys = dict(module.named_parameters()), list(module.state_dict())
    with opened({"net": module}), opened({"net": module}):
        assert [name for name, _ in module.named_children()] == ["q_proj", "k_proj", "v_proj", "out_proj"]
        assert module.k_proj.weight.data_ptr() == tensors["in_proj_weight"][WIDTH:].data_ptr()
        assert not any(weight.requires_grad for weight in module.parameters()) and not module.v_proj.training
        assert torch.equal(module.in_proj_weight, tensors["in_proj_weight"]) and module._qkv_same_embed_dim is False
        assert isinstance(module.in_proj_bias, ReadOnly)
        again = pickle.loads(pickle.dumps(copy.deepcopy(module)))
        assert type(again) is Attention and torch.equal(again.q_proj.weight, module.q_proj.weight)
    assert {name: id(tensor) for name, tensor in module.named_parameters()} == {n: id(t) for n, t in tensors.items()}
    assert list(module.state_dict()) == keys and module._qkv_same_embed_dim is True


@pytest.mark.parametrize("norm", [None, nn.LayerNorm])
@pytest.mark.parametrize("aligned", [True, False])
def test_an_encoder_puts_zeros_where_torch_does(aligned: bool, norm: Any) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
    encoder, x = nn.TransformerEncoder(layer, 2, norm and norm(WIDTH)).eval(), torch.randn(2, TOKENS, WIDTH)
    padding = torch.tensor([[False, False, True, True], [False, False, False, not aligned]])
    padding[1] = padding[1].flip(0) if not aligned else padding[1]
    told = {}
    for grad in (torch.no_grad, torch.enable_grad):
        with grad():
            told[grad] = encoder(x, src_key_padding_mask=padding), encoder(x), encoder(x, mask=torch.zeros(4, 4))
            with opened({"net": encoder}):
                assert type(encoder) is PaddedEncoder and type(encoder.layers[1].self_attn) is Attention
                made = encoder(x, src_key_padding_mask=padding), encoder(x), encoder(x, mask=torch.zeros(4, 4))
            for ours, theirs in zip(made, told[torch.no_grad], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert type(encoder) is nn.TransformerEncoder and encoder.use_nested_tensor
    assert aligned != torch.allclose(told[torch.no_grad][0], told[torch.enable_grad][0], atol=1e-4)


def test_what_cannot_be_opened_says_why() -> None:
    class Own(nn.MultiheadAttention):
        pass

    patched, replaced, computed = attention(), attention(), attention()
    patched.forward = patched.forward  # type: ignore[method-assign]
    replaced.out_proj = nn.Identity()  # type: ignore[assignment]
    weight = computed._parameters.pop("in_proj_weight")
    computed.in_proj_weight = weight.detach()  # type: ignore[union-attr, assignment]
    bad = {"own": Own(8, 2), "patched": patched, "replaced": replaced, "computed": computed}
    for module, word in zip(bad.values(), ("subclass", "forward was replaced", "out_proj", "anew"), strict=True):
        assert word in (refusal(module) or "")
    assert not closed_in(bad) and refusal(nn.Linear(2, 2)) is None is refusal(attention())
    assert list(closed_in({"net": nn.ModuleList([attention()])})) == ["net.0"]


def block() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
    return {"net": nn.ModuleDict({"enc": nn.TransformerEncoder(layer, 1), "all": attention(), "none": attention()})}


SCHEMES = {
    "net.enc.layers.0.self_attn.q_proj": "w8a8", "net.enc.layers.0.self_attn.out_proj": "w4a16",
    "net.all.q_proj": "w4a8", "net.all.k_proj": "w8a8", "net.all.v_proj": "w8a16", "net.all.out_proj": "w8a8",
    "net.none.q_proj": "keep",
}  # fmt: skip


@pytest.mark.parametrize("keep", [True, False])
def test_a_swap_opens_what_it_packs_alone(keep: bool) -> None:
    parts, schemes = block(), {name: parse_scheme(text) for name, text in SCHEMES.items()}
    net: Any = parts["net"].eval()
    before, full = copy.deepcopy(net.state_dict()), module_bytes(net)
    done = swap(parts, schemes, keep_originals=keep)
    attn = net["enc"].layers[0].self_attn
    assert type(attn) is type(net["all"]) is Attention and type(net["none"]) is nn.MultiheadAttention
    assert isinstance(attn.q_proj, QuantLinear) and type(attn.k_proj) is nn.Linear and type(net["enc"]) is PaddedEncoder
    assert set(net["none"].state_dict()) == set(attention().state_dict()) and module_bytes(net) < full
    x = torch.randn(2, TOKENS, WIDTH)
    out = net["enc"](x)
    if not keep:
        assert all(w.untyped_storage().nbytes() == w.nbytes for w in (attn.k_proj.weight, attn.v_proj.weight))
        with pytest.raises(SwapError, match="were not kept"):
            undo(done)
        return
    for _ in range(2):
        undo(done)
        assert list(net.state_dict()) == list(before) and type(net["enc"]) is nn.TransformerEncoder
        assert all(torch.equal(now, before[name]) for name, now in net.state_dict().items())
        redo(done)
        redo(done)
        assert torch.equal(net["enc"](x), out)


def test_a_swap_that_fails_closes_again() -> None:
    parts, schemes = block(), {name: parse_scheme(text) for name, text in SCHEMES.items()}
    net: Any = parts["net"]
    for name in ("net.none.in_proj", "net.non.q_proj"):
        with pytest.raises(SwapError, match=r"did you mean 'net.none.\w_proj'"):
            swap(parts, schemes | {name: parse_scheme("w8a8")})
    net["all"].out_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(FormatError, match="net.all.out_proj"):
        swap(parts, schemes)
    assert {type(net["all"]), type(net["enc"].layers[0].self_attn)} == {nn.MultiheadAttention}
    assert list(net.state_dict()) == list(block()["net"].state_dict())


def test_an_encoder_with_packed_layers_but_torchs_attention() -> None:
    """Torch would nest its tensors, were it not told."""
    parts = block()
    net: Any = parts["net"].eval()
    x, padding = torch.randn(2, TOKENS, WIDTH), torch.tensor([[False] * 4, [False, False, True, True]])
    with torch.no_grad():
        full = net["enc"](x, src_key_padding_mask=padding)
        done = swap(parts, {"net.enc.layers.0.linear1": parse_scheme("w8a8")})
        out = net["enc"](x, src_key_padding_mask=padding)
        assert type(net["enc"].layers[0].self_attn) is nn.MultiheadAttention and not torch.equal(out, full)
        torch.testing.assert_close(out, full, rtol=0.1, atol=0.1)
        undo(done)
        assert torch.equal(net["enc"](x, src_key_padding_mask=padding), full)
