"""The CUDA kernels where there is no GPU: Triton's interpreter runs them, its compiler compiles them for devices that
are not here, and torch.compile sees no break at them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from bitplan.plans.formats.packing import pack
from bitplan.plans.formats.storage import Packed, dequantize
from bitplan.plans.inputs.base import ActivationError, ActivationScales
from bitplan.plans.inputs.integer import quantize_rows
from bitplan.plans.kernels import KERNELS, Geometry, Held
from bitplan.plans.kernels.gpu import int_mm as gpu_int_mm
from bitplan.plans.kernels.gpu import operators as gpu
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.scheme import WEIGHT_BITS, WeightFormat, parse_scheme

pytest.importorskip("triton", reason="Triton is not installed")
torch.set_num_threads(1)
ROOT = Path(__file__).parents[3]
HOME = "cuda" if KERNELS["gpu_int8"].available(torch.device("cuda")) is None else "cpu"
RANGES, WHOLE = ActivationScales(2.5, 4.0), ActivationScales(2.5)
SIZES = [1, 3, 31, 64, 160, 257, 512]  # inputs


def code_scheme(bits: int, group: int | None, affine: bool) -> str:
    return f"{WeightFormat('int', bits, group, affine)}a8"


def packed_codes(shape: tuple[int, ...], scheme: str, fill: str) -> Packed:
    """Codes with scales of 1: lowest or highest ones with the zero point farthest from them, or random."""
    fmt = parse_scheme(scheme).weight
    inputs, low, high = shape[1:].numel(), -(1 << (fmt.bits - 1)), (1 << (fmt.bits - 1)) - 1
    codes = torch.randint(low, high + 1, (shape[0], inputs)).to(torch.int8)
    zero = torch.randint(0, high - low + 1, (shape[0], -(-inputs // (fmt.group or inputs)))).to(torch.uint8)
    if fill != "random":
        codes.fill_(low if fill == "lowest" else high)
        zero.fill_(high - low if fill == "lowest" else 0)
    tensors = {"codes": pack(codes, fmt.bits), "scale": torch.ones(zero.shape)}
    return Packed(tensors | ({"zero": zero} if fmt.affine else {}), shape, fmt)


def sums(codes: Tensor, packed: Packed, geometry: Geometry | None = None) -> Tensor:
    moved = Packed({name: part.to(HOME) for name, part in packed.tensors.items()}, packed.shape, packed.format)
    inputs = [codes.to(HOME), torch.ones(codes.shape[0], 1, device=HOME)]
    return gpu.multiplied(inputs, Held(moved, parse_scheme("w8a8"), "any", geometry), torch.float32).cpu()


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("group", [None, 32, 64, 128])
@pytest.mark.parametrize("affine", [False, True])
def test_integer_sums_are_exact(bits, group, affine):
    """Against int64, ends of the codes included, wherever planes, groups and blocks end."""
    scheme = code_scheme(bits, group, affine)
    for inputs, fill, (rows, outputs) in zip(
        SIZES, ("lowest", "random", "highest", "random", "random", "lowest", "random"),
        ((1, 1), (17, 3), (1, 18), (5, 1), (2, 17), (3, 3), (16, 16)), strict=True,
    ):  # fmt: skip
        packed = packed_codes(torch.Size((outputs, inputs)), scheme, fill)
        codes = torch.randint(-128, 128, (rows, inputs)).to(torch.int8)
        if fill != "random":
            codes.fill_(-128)
        expected = codes.long() @ dequantize(packed).long().t()
        assert torch.equal(sums(codes, packed).long(), expected), (inputs, fill)


def test_no_sum_leaves_int32(monkeypatch):
    """The largest sum of one accumulator; and the same with many accumulators, each scaled apart."""
    from bitplan.plans.kernels.gpu import product as triton_product

    assert triton_product.SEGMENT * 255 * 128 < 2**31 <= triton_product.SEGMENT * 255 * 128 * 4
    packed = packed_codes(torch.Size((2, triton_product.SEGMENT)), "w8za8", "lowest")
    codes = torch.full((1, packed.inputs), -128, dtype=torch.int8)
    assert torch.equal(sums(codes, packed).long(), codes.long() @ dequantize(packed).long().t())
    monkeypatch.setattr(triton_product, "SEGMENT", 300)
    for scheme in ("w8a8", "w8za8", "w3a8"):
        packed = packed_codes(torch.Size((3, 640)), scheme, "random")
        codes = torch.randint(-128, 128, (5, 640)).to(torch.int8)
        assert torch.equal(sums(codes, packed).long(), codes.long() @ dequantize(packed).long().t())


@pytest.mark.parametrize("scheme", ["w8a8", "w8g32za8", "w6a8", "w5za8", "w3g32za8", "w2a8"])
def test_convolutions_are_exact(scheme):
    """Against float64, which holds these integers, at strides, dilations and pads that differ by side."""
    for shape, weight, geometry in (
        ((2, 3, 5, 6), (4, 3, 3, 3), Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))),
        ((1, 32, 5, 4), (17, 32, 1, 1), Geometry.plain(2)),
        ((2, 8, 9, 8), (3, 8, 3, 2), Geometry((3, 2), (2, 3), (0, 3, 2, 1), (2, 1))),
        ((1, 16, 7, 7), (2, 16, 2, 4), Geometry((2, 4), (1, 2), (5, 0, 0, 4), (1, 2))),
    ):
        packed = packed_codes(torch.Size(weight), scheme, "random")
        codes = torch.randint(-128, 128, shape).to(torch.int8)
        padded = pad(codes.double(), geometry.pads)
        exact = conv2d(padded, dequantize(packed).double(), None, geometry.stride, 0, geometry.dilation)
        assert torch.equal(sums(codes.movedim(1, -1), packed, geometry).double(), exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("text", ["w8a8", "w8a6", "w8a4", "w8a8t", "w8a8t+first"])
def test_rows_are_rounded_as_specified_to_the_bit(text, dtype):
    fmt, ranges = parse_scheme(text).inputs, RANGES if "first" in text else WHOLE
    x = torch.randn(2, 5, 130, dtype=torch.float64).mul(3).to(dtype)
    x[0, 1] = 0
    x[0, 2] = 1e-40
    x[1, 0, :5] = torch.tensor([127, 0.5, 1.5, -2.5, 126.5])
    x[1, 2] = x[1, 2].clamp(-1, -0.5)
    for case in (x, x[:1, :3, :1], x[:, :, :64].transpose(0, 1), x[:, :, ::2]):
        expected, found = quantize_rows(case, fmt, ranges), gpu.rounded(case.to(HOME), fmt, ranges)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


def test_long_rows_are_rounded_in_chunks():
    for text in ("w8a8", "w8a8t"):
        x, fmt = torch.randn(3, 20000) * torch.tensor([[1.0], [1e-3], [50]]), parse_scheme(text).inputs
        x[0, 19999], x[1, 8192] = -77, 5
        expected, found = quantize_rows(x, fmt, WHOLE), gpu.rounded(x.to(HOME), fmt, WHOLE)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


def test_ties_go_to_even():
    x = torch.cat([torch.arange(-126.5, 127), torch.tensor([127.0])])[None]
    codes, steps = gpu.rounded(x.to(HOME), parse_scheme("w8a8").inputs, None)
    assert float(steps) == 1 and torch.equal(codes.cpu().float(), x.round())
    assert not torch.equal(x.round(), (x + 0.5).floor())


def test_missing_ranges_are_refused():
    for text, scales, words in (
        ("w8a8t", None, "no calibrated range"),
        ("w8a8t+first", RANGES, "batch, tokens, features"),
    ):
        with pytest.raises(ActivationError, match=words):
            gpu.rounded(torch.randn(3, 4), parse_scheme(text).inputs, scales)


@pytest.mark.parametrize("name", ["gpu_int8", "gpu_weight_only", "gpu_int_mm"])
def test_no_rows_give_no_rows(name):
    scheme = parse_scheme("w8a16" if name == "gpu_weight_only" else "w8a8t")
    packed = packed_codes(torch.Size((3, 8)), "w8a8", "random")
    out = KERNELS[name].run(torch.randn(0, 5, 8), Held(packed, scheme, "linear", scales=WHOLE))
    assert out.shape == (0, 5, 3)


@pytest.mark.parametrize("inputs", [1, 7, 64, 4097, 70000])
@pytest.mark.parametrize("fill", [-128, 64])
def test_products_of_torch_are_exact_and_as_a_gpu_takes_them(inputs, fill, monkeypatch):
    whole = torch._int_mm

    def as_on_cuda(left: Tensor, right: Tensor) -> Tensor:
        assert left.shape[0] > 16 and left.shape[1] % 8 == right.shape[1] % 8 == 0 and right.t().is_contiguous()
        return whole(left, right)

    monkeypatch.setattr(torch, "_int_mm", as_on_cuda)
    for rows, outputs in ((1, 1), (17, 8), (20, 3)):
        left, right = (torch.full((n, inputs), fill, dtype=torch.int8) for n in (rows, outputs))
        found = gpu_int_mm.int_product(left, right, torch.ones(rows, 1))
        assert torch.equal(found.double(), left.double() @ right.double().t())


@pytest.mark.parametrize(("name", "text"), [("gpu_int8", "w4g32za8"), ("gpu_weight_only", "fp8a16")])
def test_a_compiled_model_has_no_breaks(name, text):
    here = replace(KERNELS[name], available=lambda device: None)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Linear(6, 5)]
    model = nn.Sequential(*(quantize_module(layer, parse_scheme(text), here) for layer in layers)).eval().to(HOME)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for shape in ((2, 3, 4, 6), (1, 3, 5, 6)):
        x = torch.randn(shape, device=HOME)
        with torch.no_grad():
            assert torch.equal(compiled(x), model(x))


def test_the_operators_are_what_they_say():
    packed = packed_codes(torch.Size((4, 3, 3, 3)), "w4a8", "random")
    x, steps = torch.randint(-9, 9, (2, 5, 4, 3)).to(HOME, torch.int8), torch.ones(2, 1, device=HOME)
    weight, window = [packed.tensors[name].to(HOME) for name in ("codes", "scale")], [3, 3, 1, 1, 1, 1, 1, 1, 5, 4]
    bias = torch.ones(4, device=HOME)
    torch.library.opcheck(gpu.product, ([x, steps], weight, bias, [4, 0], window, torch.float16))
    torch.library.opcheck(gpu.round_rows, (torch.randn(3, 5, device=HOME), 8, [], 1))


def test_kernels_compile_for_devices_that_are_not_here():
    """The interpreter takes more than the compiler does. Blocks must fit the shared memory of the smallest device."""
    tool = ROOT / "tests" / "plans" / "kernels" / "compile_kernels.py"
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", ""),
    }
    done = subprocess.run([sys.executable, tool], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_the_benchmark_says_that_it_needs_a_gpu():
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu_kernels"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "needs a CUDA device" in done.stderr
