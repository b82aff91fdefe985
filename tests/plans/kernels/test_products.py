"""The paths of int8 products: equal to the bit, chosen by what the processor can do, and never wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bitplan.plans.formats.storage import quantize
from bitplan.plans.kernels import choose_kernel, geometry_of
from bitplan.plans.kernels.cpu import choice, direct, int8, products
from bitplan.plans.kernels.cpu.choice import Processor, choose_path
from bitplan.plans.kernels.cpu.paths import DEPTH, FLOAT_BLOCKS, INT_MM, PATHS, ProductPath, blocks_of, exact_total
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.scheme import parse_scheme

EXACT = [path for path in PATHS.values() if choice.is_exact(path)]  # with ONEDNN_MAX_CPU_ISA=AVX2, int_mm is not
WEIGHTS = ("w8", "w4m", "w8z", "w3g32", "w5g64z", "w2g128m")
FILLS = ("random", "lowest", "highest")


def codes_of(*shape: int, seed: int, fill: str = "random") -> Tensor:
    if fill == "random":
        return torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    return torch.full(shape, -128 if fill == "lowest" else 127, dtype=torch.int8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 40), outputs=st.integers(1, 40), seed=st.integers(0, 99),
    fills=st.tuples(st.sampled_from(FILLS), st.sampled_from(FILLS)),
    depth=st.integers(1, 70) | st.sampled_from([577, 1023, 1024, 1025, 2048, 2049, 3073, 5001, products.SEGMENT]),
)  # fmt: skip
def test_each_path_is_int64_rounded_once(
    rows: int, outputs: int, depth: int, seed: int, fills: tuple[str, str]
) -> None:
    left, right = (
        codes_of(rows, depth, seed=seed, fill=fills[0]),
        codes_of(outputs, depth, seed=~seed & 0xFF, fill=fills[1]),
    )
    exact = left.long() @ right.long().t()
    for path in EXACT:
        found = path.product(path.operand(left), path.operand(right).t())
        assert found.dtype == torch.float32 and torch.equal(found, exact.to(torch.int32).float())


def linear(path: ProductPath, codes: Tensor, text: str, weight: Tensor, bias: Tensor | None) -> Tensor:
    out, scale = (
        torch.empty(len(codes), len(weight)),
        torch.rand(len(codes), 1, generator=torch.Generator().manual_seed(4)),
    )
    products.write_products(out, codes, scale, quantize(weight, parse_scheme(text + "a8").weight), bias, path)
    return out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 70), outputs=st.integers(1, 50), text=st.sampled_from(WEIGHTS), seed=st.integers(0, 99),
    depth=st.integers(1, 300) | st.sampled_from([1024, 1025, 2100, 33000]), biased=st.booleans(),
)  # fmt: skip
def test_linear_layers_are_the_same_to_the_bit(
    rows: int, outputs: int, depth: int, text: str, seed: int, biased: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(size, generator=generator) for size in ((outputs, depth), (outputs,)))
    codes = codes_of(rows, depth, seed=seed)
    first, *others = [linear(path, codes, text, weight, bias if biased else None) for path in (FLOAT_BLOCKS, *EXACT)]
    assert all(torch.equal(first, other) for other in others)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    dims = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 20) | st.sampled_from([64, 113, 130, 257]))
    sizes = [draw(st.integers(1, 4)) for _ in range(3 * dims)]
    kernel, stride, dilation = (
        sizes[:dims],
        [min(s, 3) for s in sizes[dims : 2 * dims]],
        [min(s, 2) for s in sizes[2 * dims :]],
    )
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](
        channels, draw(st.integers(1, 20)), tuple(kernel), tuple(stride), draw(st.integers(0, 2)), tuple(dilation),
        bias=draw(st.booleans()),
    )  # fmt: skip
    extra = [(k - 1) * d + 1 + draw(st.integers(0, 5)) for k, d in zip(kernel, dilation, strict=True)]
    x = torch.randn(draw(st.integers(1, 3)), channels, *extra)
    return layer, x.movedim(1, -1).contiguous().movedim(-1, 1) if draw(st.booleans()) else x


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=convolutions(), text=st.sampled_from(WEIGHTS), held=st.sampled_from([1, 5000, 1 << 24]))
def test_convolutions_are_the_same_to_the_bit(case: tuple[nn.Module, Tensor], text: str, held: int) -> None:
    """Those of FLOAT_BLOCKS are computed without columns where the weight has one scale a channel."""
    (layer, x), scheme = case, parse_scheme(text + "a8")
    packed, geometry = quantize(layer.weight.detach(), scheme.weight), geometry_of(layer)
    assert geometry is not None
    bias = None if layer.bias is None else layer.bias.detach()
    codes = (x * 20).round().clamp(-127, 127).to(torch.int8).movedim(1, -1).contiguous()
    scale = torch.rand(len(x), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "HELD", held)
        first, *others = [int8.convolve(codes, scale, packed, bias, geometry, path) for path in (FLOAT_BLOCKS, *EXACT)]
    assert all(torch.equal(first, other) for other in others)


def test_a_deep_direct_convolution_is_exact_at_the_ends_of_int8() -> None:
    """Its sums pass 2^24 many times over."""
    layer = nn.Conv2d(900, 3, 3, padding=1)
    layer.weight.data.fill_(1.0)[1].neg_()
    packed, geometry = quantize(layer.weight.detach(), parse_scheme("w8a8").weight), geometry_of(layer)
    assert geometry is not None and direct.takes(packed, geometry) == torch.backends.mkldnn.is_available()
    codes, scale = torch.full((1, 4, 4, 900), 127, dtype=torch.int8), torch.ones(1, 1)
    outs = [int8.convolve(codes, scale, packed, None, geometry, path) for path in EXACT]
    assert float(outs[0].abs().max() / packed.tensors["scale"][0]) > 2**26
    assert all(torch.equal(outs[0], out) for out in outs)


def test_autocast_and_faster_float_products_change_nothing() -> None:
    codes, weight = codes_of(33, 1500, seed=1), torch.randn(20, 1500)
    expected = linear(FLOAT_BLOCKS, codes, "w8", weight, None)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(linear(FLOAT_BLOCKS, codes, "w8", weight, None), expected)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 1024, 1025, 5001])
def test_blocks_cover_a_size_evenly(size: int) -> None:
    blocks = blocks_of(size, 8)
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])] and blocks[-1][1] == size
    lengths = [stop - start for start, stop in blocks]
    assert max(lengths) <= 8 and len(blocks) == -(-size // 8)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_total_is_rounded_once(count: int) -> None:
    """Beyond 2^24 float32 sums of integers round; 2^24 + 1 + 1 would stay 2^24 if each sum did."""
    parts = [torch.tensor([2.0**24]), *[torch.tensor([1.0])] * (count - 1)]
    exact = torch.tensor([2**24 + count - 1])
    assert torch.equal(exact_total(part.clone() for part in parts), exact.float())


def processor(features: tuple[str, ...], int_mm: float, exact: bool = True) -> Processor:
    """One on which float32 takes a second, its blocks .1 more, and `torch._int_mm` so many seconds."""
    times = {None: 1.0, FLOAT_BLOCKS: 1.1, INT_MM: int_mm}
    return Processor(features, lambda path: exact or path is FLOAT_BLOCKS, lambda path: times[path])


@pytest.mark.parametrize(
    ("its", "path", "text"),
    [
        (processor(("VNNI",), 0.25), INT_MM, "4.0x float32 (int_mm; VNNI)"),
        (processor(("VNNI", "AMX"), 0.1), INT_MM, "VNNI and AMX"),
        (processor((), 40.0), FLOAT_BLOCKS, "0.9x float32 (float_blocks; no VNNI or AMX)"),
        (processor((), 1.0), FLOAT_BLOCKS, "no VNNI"),  # faster, but by no more than noise
        (processor((), 0.5), INT_MM, "no VNNI or AMX, but 2.2x float_blocks"),
        (processor(("VNNI",), 1.5), INT_MM, "VNNI"),
        (processor(("VNNI",), 20.0), FLOAT_BLOCKS, "VNNI, but 18.2x int_mm"),
        (processor(("VNNI",), 0.25, exact=False), FLOAT_BLOCKS, "torch's int8 products are wrong here"),
    ],
)
def test_the_choice_follows_the_features_unless_they_mislead(its: Processor, path: ProductPath, text: str) -> None:
    found = choose_path(its)
    assert found.path == path.name and text in str(found)


def test_the_choice_here_is_made_once_and_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice.path_choice()
    assert choice.chosen_path() == found.path and choice.is_exact(PATHS[found.path])
    assert 0 < found.speed < 100
    monkeypatch.setattr(choice, "choose_path", lambda _: pytest.fail("chosen twice"))
    assert choice.path_choice() is found


@pytest.mark.parametrize("shifted", [0, 1])
def test_a_path_that_saturates_is_found_out(shifted: int) -> None:
    """As sums of two products in 16 bits do, of which one factor is shifted to be unsigned: all that there is without
    VNNI."""

    def saturating(*both: Tensor) -> Tensor:
        left, right = both[0].long(), both[1].t().long()
        moved = (left + 128, right) if shifted == 0 else (left, right + 128)
        pairs = (moved[0].unsqueeze(1) * moved[1]).unflatten(2, (-1, 2)).sum(-1).clamp(-(2**15), 2**15 - 1)
        return (pairs.sum(-1) - 128 * (right.sum(1) if shifted == 0 else left.sum(1, True))).float()

    left, right = codes_of(3, DEPTH, seed=1) // 2, codes_of(4, DEPTH, seed=2) // 2
    assert torch.equal(saturating(left, right.t()).long(), left.long() @ right.long().t())  # right for small codes
    assert not choice.is_exact(ProductPath("saturating", INT_MM.operand, saturating, False))


ISA = ("ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41")
LAYER = """
import torch
from bitplan.plans.kernels import choose_kernel
from bitplan.plans.kernels.cpu.choice import path_choice
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.scheme import parse_scheme
torch.manual_seed(0)
scheme, kernel = parse_scheme("w8a8"), choose_kernel(parse_scheme("w8a8"), "linear")
layer, x = torch.nn.Linear(1500, 40), torch.randint(-127, 128, (30, 1500)).float()
layer.weight.data = torch.randint(-127, 128, (40, 1500)).float()
layer.weight.data[:, 0] = x[:, 0] = 127  # all scales are 1
out = quantize_module(layer, scheme, kernel)(x)
exact = (x.long() @ layer.weight.long().t()).float() + layer.bias
assert torch.equal(out, exact.detach()), (out - exact).abs().max()
print(path_choice().path)
"""


@pytest.mark.parametrize("settings", ISA)
def test_a_restricted_processor_computes_the_same(settings: str) -> None:
    """torch sees VNNI, and oneDNN, told not to use it, would saturate."""
    env = os.environ | dict(setting.split("=") for setting in settings.split())
    found = subprocess.run([sys.executable, "-c", LAYER], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() in PATHS


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_the_choice_is_no_part_of_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it is first made while a compiler traces."""
    scheme = parse_scheme("w8a8")
    layer = quantize_module(nn.Linear(40, 6), scheme, choose_kernel(scheme, "linear"))
    choice.path_choice.cache_clear()
    torch._dynamo.reset()
    x = torch.randn(5, 40)
    with torch.no_grad():
        found = torch.compile(layer, fullgraph=True)(x)
        torch.testing.assert_close(found, layer(x), rtol=1e-3, atol=1e-2)
    assert choice.path_choice.cache_info().misses == 1
