"""What every line of the kernel table promises, against float64 arithmetic on the stored parts."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
from dataclasses import replace
from math import prod

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, embedding, linear

from bitplan.plans.formats.storage import Packed, dequantize, flattened, quantize, shaped, unpack_rows
from bitplan.plans.formats.storage import dequantize_rows as lookup__dequantize_rows
from bitplan.plans.inputs.base import ActivationScales
from bitplan.plans.inputs.integer import quantize_rows
from bitplan.plans.kernels import (
    KERNELS,
    REFERENCE,
    Geometry,
    Held,
    Kernel,
    KernelError,
    available_kernels,
    check_somewhere,
    choose_kernel,
    geometry_of,
    lookup,
)
from bitplan.plans.kernels.cpu import choice, direct, products
from bitplan.plans.kernels.cpu import int8 as cpu_int8
from bitplan.plans.kernels.cpu import weight_only as cpu_weight_only
from bitplan.plans.kernels.cpu.paths import INT_MM, PATHS, ProductPath
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import kind_of, quantize_module
from bitplan.plans.scheme import EXAMPLES, KEEP, Scheme, WeightFormat, parse_scheme

torch.set_num_threads(1)
SCHEMES = [
    parse_scheme(text)
    for text in (
        *EXAMPLES,
        "w8za8",
        "w6zma8",
        "w5g32a8",
        "w3g64zma8t",
        "w2g128a8",
        "fp8a8",
        "w8za16",
        "w6a16",
        "w5za16",
        "w3g32zma16",
        "w2a16",
    )
]
LINEARS = [((1, 7), 1), ((3, 64), 5), ((7, 1), 3), ((2, 5, 130), 9), ((2, 3, 33), 4)]
CONVS = [
    ((1, 3, 5, 6), nn.Conv2d(3, 4, 3, padding=1)),
    ((2, 8, 7, 7), nn.Conv2d(8, 5, 1)),
    ((2, 5, 9, 8), nn.Conv2d(5, 3, 3, stride=2, padding=1, bias=False)),
    ((1, 9, 8, 9), nn.Conv2d(9, 2, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1))),
    ((1, 2, 6, 5), nn.Conv2d(2, 3, 4, padding="same")),
    ((2, 3, 9), nn.Conv1d(3, 4, 3, padding=1)),
    ((1, 5, 13), nn.Conv1d(5, 3, 4, stride=2, padding=3, dilation=2, bias=False)),
    ((2, 4, 8), nn.Conv1d(4, 3, 4, padding="same")),
    ((2, 3, 4, 5, 6), nn.Conv3d(3, 4, 3, padding=1)),
    ((1, 4, 5, 4, 6), nn.Conv3d(4, 2, (1, 3, 2), stride=(2, 1, 2), padding=(0, 2, 1), dilation=(1, 1, 2), bias=False)),
    ((2, 6, 2, 3, 4), nn.Conv3d(6, 3, 1)),
    ((1, 5, 9), nn.Conv1d(5, 4, 3, padding="same")),  # windows that overlap in one run of memory
    ((2, 1, 2, 3, 3), nn.Conv3d(1, 2, 1)),
    ((1, 4, 6, 1), nn.Conv2d(4, 3, (3, 1))),
]
REAL = [kernel for kernel in KERNELS.values() if kernel.real and "linear" in kernel.kinds]
LOOKUP = KERNELS["lookup"]
ON_GPU = [kernel for kernel in REAL if kernel.name.startswith("gpu_")]
NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
EXACT = [path for path in PATHS.values() if choice.is_exact(path)]  # with ONEDNN_MAX_CPU_ISA=AVX2, int_mm is not
NEEDS_INT_MM = pytest.mark.skipif(INT_MM not in EXACT, reason="torch's int8 product, the stand-in for CUDA's, is wrong")
NEEDS = {"gpu_int8": [NEEDS_TRITON], "gpu_weight_only": [NEEDS_TRITON], "gpu_int_mm": [NEEDS_INT_MM]}
CASES = [
    pytest.param(kernel, scheme, marks=NEEDS.get(kernel.name, []))
    for kernel, scheme in itertools.product(REAL, SCHEMES)
    if kernel.refuses(scheme, "linear") is None
]
PATH_CASES = [
    pytest.param(*case.values, path, marks=case.marks)
    for case in CASES
    for path in (EXACT if case.values[0].name == "cpu_int8" else [None])
]
RANGES = ActivationScales(2.5, 4.0)


def ids(value):
    return getattr(value, "name", str(value))


def held(packed: Packed, scheme: Scheme, bias: Tensor | None = None, geometry: Geometry | None = None) -> Held:
    """A layer, with the ranges that its scheme needs."""
    ranges = RANGES if scheme.transforms else ActivationScales(RANGES.tensor)
    return Held(packed, scheme, kind(geometry), geometry, bias, ranges if scheme.inputs.static else None)


def use(monkeypatch: pytest.MonkeyPatch, path: ProductPath | None) -> None:
    """From now on this is the processor's path; None for a kernel that has none."""
    if path is not None:
        monkeypatch.setattr(cpu_int8, "chosen_path", lambda: path.name)


def exact(x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, geometry: Geometry | None) -> Tensor:
    return REFERENCE.run(x.double(), held(packed, scheme, None if bias is None else bias.double(), geometry))


def magnitude(x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, geometry: Geometry | None) -> Tensor:
    """The sum of magnitudes that the bounds of the kernels scale with, at least."""
    weight = dequantize(packed).abs()
    if packed.format.affine:  # codes and zero points count apart: they are summed apart
        zero = packed.tensors["zero"].float() - 2 ** (packed.format.bits - 1)
        size = packed.format.group or packed.inputs
        flat = (zero.abs() * packed.tensors["scale"]).repeat_interleave(size, 1)[:, : packed.inputs]
        weight = weight + 2 * shaped(flat, packed.shape)
    x, weight = x.abs().double() * 1.01 + 1e-30, weight.double()
    bias = None if bias is None else bias.abs().double()
    if geometry is None:
        return linear(x, weight, bias)
    return convolved(x, weight, bias, geometry)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """By torch, padded beforehand."""
    conv = {3: conv1d, 4: conv2d, 5: conv3d}[x.dim()]
    return conv(nn.functional.pad(x, geometry.pads), weight, bias, geometry.stride, 0, geometry.dilation)


def kind(geometry: Geometry | None) -> str:
    return "linear" if geometry is None else f"conv{len(geometry.kernel_size)}d"


def compute(
    kernel: Kernel, x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, geometry: Geometry | None
) -> Tensor:
    """What `kernel` gives: on a GPU where it runs there, else on the CPU, Triton's through its interpreter."""
    home = "cpu" if kernel.available(torch.device("cuda")) else "cuda"
    packed = Packed({name: part.to(home) for name, part in packed.tensors.items()}, packed.shape, packed.format)
    return kernel.run(x.to(home), held(packed, scheme, None if bias is None else bias.to(home), geometry)).cpu()


def bound_factor(kernel: Kernel, packed: Packed) -> float:
    """What the docstrings of the kernels promise, by which magnitudes are multiplied."""
    groups = packed.tensors["scale"].shape[1]
    factors = {"cpu_int8": 2 * groups + 6, "gpu_int8": groups + 5, "gpu_int_mm": 6}
    if kernel.name in factors:
        return factors[kernel.name] * 2**-24 * (127 / 126.5)
    return (packed.inputs + 3) * 2**-23


def skips(kernel: Kernel, scheme: Scheme, x: Tensor, geometry: Geometry | None) -> bool:
    """Whether a case has no such layer."""
    return scheme.transforms and x.dim() < 3 or kernel.refuses(scheme, kind(geometry), geometry) is not None


def inputs_and_layers() -> list[tuple[Tensor, Tensor, Tensor | None, Geometry | None]]:
    generator = torch.Generator().manual_seed(1)
    cases = []
    for shape, outputs in LINEARS:
        weight = torch.randn(outputs, shape[-1], generator=generator)
        cases.append((torch.randn(shape, generator=generator), weight, torch.randn(outputs), None))
    for shape, layer in CONVS:
        bias = None if layer.bias is None else layer.bias.detach()
        cases.append((torch.randn(shape, generator=generator), layer.weight.detach(), bias, geometry_of(layer)))
    return cases


@pytest.mark.parametrize(("kernel", "scheme", "path"), PATH_CASES, ids=ids)
def test_a_real_kernel_equals_the_reference_within_its_bound(kernel, scheme, path, monkeypatch):
    use(monkeypatch, path)
    for x, weight, bias, geometry in inputs_and_layers():
        if skips(kernel, scheme, x, geometry):
            continue
        packed = quantize(weight, scheme.weight)
        out = compute(kernel, x, packed, scheme, bias, geometry)
        expected = exact(x, packed, scheme, bias, geometry)
        bound = bound_factor(kernel, packed) * magnitude(x, packed, scheme, bias, geometry) + 1e-30
        assert out.dtype == x.dtype and out.shape == expected.shape
        excess = float(((out.double() - expected).abs() / bound).max())
        assert excess <= 1, (geometry, tuple(x.shape), excess)


@pytest.mark.parametrize(("kernel", "scheme"), CASES, ids=ids)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_go_in_and_come_out(kernel, scheme, dtype):
    for x, weight, bias, geometry in inputs_and_layers()[2:6]:
        if skips(kernel, scheme, x, geometry):
            continue
        packed, x = quantize(weight, scheme.weight), x.to(dtype)
        out = compute(kernel, x, packed, scheme, bias, geometry)
        bound = 6 * torch.finfo(dtype).eps * magnitude(x, packed, scheme, bias, geometry)
        assert out.dtype == dtype
        assert bool(((out.double() - exact(x, packed, scheme, bias, geometry)).abs() <= bound).all())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_reference_is_arithmetic_on_codes(scheme):
    for x, weight, bias, geometry in inputs_and_layers():
        rows = KINDS[kind(geometry)].rows(x)
        if scheme.transforms and (rows.dim() < 3 or geometry is not None):
            continue
        packed = quantize(weight, scheme.weight)
        rounded = x.double()
        if scheme.inputs.bits < 16:
            codes, scale = quantize_rows(rows, scheme.inputs, held(packed, scheme).scales)
            rounded = (codes.double() * scale.double()).view(x.shape)
        wide = None if bias is None else bias.double()
        if geometry is None:
            expected = linear(rounded, dequantize(packed).double(), wide)
        else:
            expected = convolved(rounded, dequantize(packed).double(), wide, geometry)
        torch.testing.assert_close(exact(x, packed, scheme, bias, geometry), expected, rtol=1e-6, atol=1e-5)
        single = REFERENCE.run(x, held(packed, scheme, bias, geometry))
        torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inputs", [1, 3, 31, 64, 577, 1024, 1025, 2049, 4097, 33000])
@pytest.mark.parametrize("fill", ["lowest", "highest", "random"])
@pytest.mark.parametrize("path", EXACT, ids=ids)
def test_integer_sums_are_exact(inputs, fill, path):
    """Against int64, at the ends of int8 too, where a sum of 2^15 products is largest."""
    for rows, outputs in ((1, 1), (1, 3), (5, 1), (17, 6)):
        left, right = torch.randint(-128, 128, (rows, inputs)), torch.randint(-128, 128, (inputs, outputs))
        if fill != "random":
            left.fill_(-128)
            right.fill_(-128 if fill == "lowest" else 127)
        segments = [(start, min(start + products.SEGMENT, inputs)) for start in range(0, inputs, products.SEGMENT)]
        for start, stop in segments:
            part = (left[:, start:stop].to(torch.int8), right[start:stop].to(torch.int8))
            operands = [path.operand(codes) for codes in part]
            out = products.summed(*operands, [(0, stop - start)], torch.ones(1, outputs), path)
            exact_sum = left[:, start:stop] @ right[start:stop]
            assert int(exact_sum.abs().max()) < 2**31
            assert torch.equal(out, exact_sum.to(torch.int32).float())


@pytest.mark.parametrize("path", EXACT, ids=ids)
def test_strided_views_multiply_exactly(path):
    """Slices of groups, transposes and columns are no copies; the product must not mind."""
    left, right = torch.randint(-128, 128, (9, 200)).to(torch.int8), torch.randint(-128, 128, (7, 200)).to(torch.int8)
    for start, stop in ((0, 64), (64, 128), (192, 200), (3, 4)):
        operands = path.operand(left), path.operand(right).t()
        out = products.summed(*operands, [(start, stop)], torch.ones(1, 7), path)
        assert torch.equal(out.long(), left[:, start:stop].long() @ right[:, start:stop].long().t())
    column, row = left[:, :1].contiguous(), right[:, :1].contiguous().t()
    out = products.summed(path.operand(column), path.operand(row), [(0, 1)], torch.ones(1, 7), path)
    assert torch.equal(out.long(), column.long() @ row.long())


@pytest.mark.parametrize("scheme", [parse_scheme(t) for t in ("w8a8", "w3g32za8", "w4za8t")], ids=str)
@pytest.mark.parametrize("path", EXACT, ids=ids)
def test_blocks_do_not_show(scheme, path, monkeypatch):
    use(monkeypatch, path)
    cases = inputs_and_layers()
    whole = []
    for x, weight, bias, geometry in cases:
        whole.append(cpu_int8.run(x, held(quantize(weight, scheme.weight), scheme, bias, geometry)))
    for module, name, value in (
        (products, "BLOCK", 20), (products, "OUTPUTS", 3), (products, "OPERANDS", 9), (direct, "WEIGHTS", 40),
        (direct, "HELD", 300), (cpu_int8, "COLUMNS", 300), (products, "SEGMENT", 5),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
        for (x, weight, bias, geometry), expected in zip(cases, whole, strict=True):
            out = cpu_int8.run(x, held(quantize(weight, scheme.weight), scheme, bias, geometry))
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_weight_only_blocks_do_not_show(monkeypatch):
    scheme = parse_scheme("w4g64a16")
    for x, weight, bias, geometry in inputs_and_layers():
        packed = quantize(weight, scheme.weight)
        whole = cpu_weight_only.run(x, held(packed, scheme, bias, geometry))
        with monkeypatch.context() as patch:
            patch.setattr(cpu_weight_only, "BLOCK", 20)
            part = cpu_weight_only.run(x, held(packed, scheme, bias, geometry))
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("geometry", [geometry_of(layer) for _, layer in CONVS], ids=str)
def test_columns_times_the_weight_are_the_convolution(geometry):
    """To the bit, in integers."""
    dims = len(geometry.kernel_size)
    codes = torch.randint(-128, 128, (2, 3, *(9, 8, 7)[:dims])).to(torch.int8)
    weight = torch.randint(-128, 128, (5, 3, *geometry.kernel_size))
    expected = convolved(codes.double(), weight.double(), None, geometry)
    sizes = geometry.output_size(*codes.shape[2:])
    assert sizes == tuple(expected.shape[2:])
    last, box = codes.movedim(1, -1).contiguous(), [slice(0, size) for size in sizes]
    whole = cpu_int8.columns_of(last, geometry, box)
    assert whole.dtype == torch.int8
    out = (whole.double() @ flattened(weight).double().t()).view(2, *sizes, 5)
    assert torch.equal(out.movedim(-1, 1), expected)
    for axis, size in enumerate(sizes):
        middle = [*box[:axis], slice(size // 2, size), *box[axis + 1 :]]
        some = cpu_int8.columns_of(last[1:], geometry, middle)
        assert torch.equal(some, whole.view(2, *sizes, -1)[(slice(1, 2), *middle)].reshape(len(some), -1))


@pytest.mark.parametrize("most", [1, 7, 50, 300, 5000])
@pytest.mark.parametrize("sizes", [(3, 5), (2, 4, 3), (2, 3, 4, 5), (1, 1, 1, 7)])
def test_portions_cover_the_output_in_runs(most, sizes):
    positions = torch.arange(prod(sizes)).view(sizes)
    boxes = list(products.portions(sizes, 6, most))
    runs = [positions[box].flatten() for box in boxes]
    assert torch.equal(torch.cat(runs), positions.flatten())
    assert all(len(run) == 1 or len(run) * 6 <= most for run in runs)


@pytest.mark.parametrize("scheme", ["w8a8", "w3g32a8t"])
def test_the_memory_format_of_an_input_does_not_show(scheme):
    scheme = parse_scheme(scheme)
    for x, weight, bias, geometry in inputs_and_layers():
        if geometry is not None:
            packed = quantize(weight, scheme.weight)
            last = x.movedim(1, -1).contiguous().movedim(-1, 1)
            outs = [cpu_int8.run(one, held(packed, scheme, bias, geometry)) for one in (x.contiguous(), last)]
            assert torch.equal(*outs)
            assert outs[0].is_contiguous()
            assert last.is_contiguous() or outs[1].movedim(1, -1).is_contiguous()


def test_eight_bit_weights_are_not_copied():
    packed = quantize(torch.randn(6, 40), parse_scheme("w8a8").weight)
    assert unpack_rows(packed, 2, 4).data_ptr() == packed.tensors["codes"][2:].data_ptr()


@pytest.mark.parametrize("kernel", REAL, ids=ids)
def test_real_kernels_decline_what_they_cannot_run(kernel):
    runs = next(scheme for scheme in SCHEMES if kernel.refuses(scheme, "linear") is None)
    anywhere = replace(kernel, available=lambda device: None)
    grouped, circular = nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
    if kernel.name == "gpu_int_mm":
        assert anywhere.supports(runs, "conv2d") == "runs linear, not conv2d"
        assert all("w8" in anywhere.supports(parse_scheme(text), "linear") for text in ("w8za8", "w8g64a8", "w4a8"))
    else:
        assert anywhere.supports(runs, "conv2d", geometry=geometry_of(nn.Conv2d(4, 4, 3, dilation=2))) is None
        assert "groups" in anywhere.supports(runs, "conv2d", geometry=geometry_of(grouped))
        assert "circular" in anywhere.supports(runs, "conv2d", geometry=geometry_of(circular))
        for kind in ("conv1d", "conv3d"):
            reason = "runs linear, conv2d, not " + kind if kernel in ON_GPU else None
            assert anywhere.supports(runs, kind) == reason
    assert "not embedding" in anywhere.supports(parse_scheme("w4a16"), "embedding")
    elsewhere = "cpu" if kernel in ON_GPU else "cuda"
    assert f"not on {elsewhere}" in kernel.supports(runs, "linear", elsewhere)
    assert anywhere.supports(KEEP, "linear") and anywhere.supports(parse_scheme("w4a4"), "linear")


def test_the_reference_runs_groups_and_padding_modes():
    x = torch.randn(2, 4, 6, 6)
    for layer in (nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")):
        packed = quantize(layer.weight, WeightFormat("int", 8))
        out = REFERENCE.run(x, held(packed, parse_scheme("w8a16"), layer.bias, geometry_of(layer)))
        torch.testing.assert_close(out, layer(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_the_reference_pads_in_every_number_of_dimensions(mode):
    for dims, layer in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1):
        conv = layer(4, 6, 3, padding=tuple(range(1, dims + 1)), padding_mode=mode, groups=2)
        x = torch.randn(2, 4, *(7, 6, 5)[:dims])
        packed = quantize(conv.weight, WeightFormat("int", 8))
        with torch.no_grad():
            conv.weight.copy_(dequantize(packed))
            out = REFERENCE.run(x, held(packed, parse_scheme("w8a16"), conv.bias, geometry_of(conv)))
            torch.testing.assert_close(out, conv(x))


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.inputs.bits == 16 and s != KEEP], ids=str)
@pytest.mark.parametrize("features", [1, 33, 64])
def test_rows_that_are_looked_up_are_the_reference_to_the_bit(scheme, features):
    packed = quantize(torch.randn(9, features), scheme.weight)
    table = dequantize(packed)
    for asked in (torch.tensor(3), torch.tensor([[0, 8, 8], [5, 1, 0]], dtype=torch.int32), torch.empty(2, 0).long()):
        out = LOOKUP.run(asked, held(packed, scheme))
        assert out.dtype == torch.float32
        assert torch.equal(out, REFERENCE.run(asked, held(packed, scheme)))
        assert torch.equal(out, embedding(asked, table))
    for beyond in (9, -1):
        with pytest.raises(IndexError):
            LOOKUP.run(torch.tensor([beyond]), held(packed, scheme))


def test_only_the_rows_asked_for_are_dequantized(monkeypatch):
    packed, seen = quantize(torch.randn(1000, 8), WeightFormat("int", 4)), []
    whole = lookup__dequantize_rows
    monkeypatch.setattr(lookup, "dequantize_rows", lambda *args: seen.append(args[2] - args[1]) or whole(*args))
    LOOKUP.run(torch.tensor([[1, 999], [1, 0]]), held(packed, parse_scheme("w4a16")))
    assert seen == [4]


def test_an_embedding_has_nothing_to_round():
    for kernel in KERNELS.values():
        for text in ("w8a8", "w4a4", "w8a8t", "fp8a8"):
            assert "row numbers" in kernel.refuses(parse_scheme(text), "embedding")
    assert choose_kernel(parse_scheme("w4a16"), "embedding") is LOOKUP
    with pytest.raises(KernelError, match="row numbers, which nothing rounds"):
        choose_kernel(parse_scheme("w8a8"), "embedding", real_only=False)
    with pytest.raises(KernelError, match="row numbers"):
        check_somewhere(parse_scheme("w8a8"), "embedding")
    check_somewhere(parse_scheme("w2a16"), "embedding")
    assert LOOKUP.refuses(parse_scheme("w4a16"), "linear") == "runs embedding, not linear"
    assert "cpu" in LOOKUP.supports(parse_scheme("w4a16"), "embedding", "meta")


def test_the_choice_is_the_first_that_runs():
    for text, name in (("w8a8", "cpu_int8"), ("w3g64ma8t", "cpu_int8"), ("w4a16", "cpu_weight_only"),
                       ("fp8a16", "cpu_weight_only")):  # fmt: skip
        for kind in ("linear", "conv1d", "conv2d", "conv3d"):
            assert choose_kernel(parse_scheme(text), kind).name == name
    assert choose_kernel(parse_scheme("w4a4"), "linear", real_only=False) is REFERENCE
    assert torch.cuda.is_available() or choose_kernel(parse_scheme("w8a8"), "linear", "cuda", False) is REFERENCE
    for scheme, kind in itertools.product(("w4a4", "w8a6", "fp8a8"), ("linear", "conv2d")):
        with pytest.raises(KernelError, match="cpu_int8: .*cpu_weight_only: .*reference: simulates.*fake"):
            choose_kernel(parse_scheme(scheme), kind)
    with pytest.raises(KernelError, match="no first token"):
        choose_kernel(parse_scheme("w8a8t+first"), "conv2d", real_only=False)


def test_doctor_hears_why_not():
    gpu = [kernel.name for kernel in ON_GPU]
    assert gpu == ["gpu_int8", "gpu_int_mm", "gpu_weight_only"]
    assert {name for name, reason in available_kernels().items() if reason} == set(gpu)
    on_cuda = {name for name, reason in available_kernels("cuda").items() if reason is None}
    assert on_cuda <= {*gpu, "lookup", "reference"} and (torch.cuda.is_available() or on_cuda == {"reference"})


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("text", ["w8a8", "w3g32za8", "w4a16"])
@pytest.mark.parametrize("path", EXACT, ids=ids)
def test_what_inductor_makes_of_a_layer_is_the_layer(text, path, monkeypatch):
    """With loops of C++ for what is between the products; blocks and writes to columns are for eager code alone."""
    use(monkeypatch, path)
    scheme = parse_scheme(text)
    layer = nn.Sequential(nn.Conv2d(32, 8, 3, padding=1), nn.GELU(), nn.Flatten(2), nn.Linear(36, 5))
    for place in (0, 3):
        kind = "conv2d" if place == 0 else "linear"
        layer[place] = quantize_module(layer[place], scheme, choose_kernel(scheme, kind))
    x = torch.randn(2, 32, 6, 6)
    torch._dynamo.reset()
    with torch.no_grad():
        expected, found = layer(x), torch.compile(layer, fullgraph=True)(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


class Clip(nn.Module):
    """Words and a film to sound."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.film, self.sound = nn.Embedding(11, 6), nn.Conv3d(3, 6, 3, padding=1), nn.Conv1d(6, 5, 3)

    def forward(self, words: Tensor, film: Tensor) -> Tensor:
        return self.sound(nn.functional.gelu(self.film(film)).flatten(2) + self.words(words).mean(1, True).mT)


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("text", ["w8a8", "w4za16"])
def test_inductor_takes_the_other_kinds_whole(text):
    model, scheme = Clip().eval(), parse_scheme(text)
    for name, layer in list(model.named_children()):
        its = parse_scheme("w4a16") if name == "words" else scheme
        setattr(model, name, quantize_module(layer, its, choose_kernel(its, kind_of(layer))))
    inputs = torch.randint(11, (2, 4)), torch.randn(2, 3, 2, 4, 4)
    torch._dynamo.reset()
    with torch.no_grad():
        expected, found = model(*inputs), torch.compile(model, fullgraph=True)(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
