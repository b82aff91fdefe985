"""Integer sums are exact, and neither blocks nor memory formats show in what a kernel returns."""

from __future__ import annotations

import shutil
from math import prod

import pytest
import torch
from tests.contracts.kernel_cases import CONVS, EXACT, convolved, held, ids, inputs_and_layers, use
from torch import Tensor, nn

from bitplan.plans.formats.storage import flattened, quantize, unpack_rows
from bitplan.plans.kernels import (
    choose_kernel,
    geometry_of,
)
from bitplan.plans.kernels.cpu import direct, products
from bitplan.plans.kernels.cpu import int8 as cpu_int8
from bitplan.plans.kernels.cpu import weight_only as cpu_weight_only
from bitplan.plans.layers.modules import kind_of, quantize_module
from bitplan.plans.scheme import parse_scheme

torch.set_num_threads(1)


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


@pytest.mark.parametrize("shift", [1, 8, 16])
def test_few_rows_of_codes_that_begin_anywhere_in_memory(shift, monkeypatch):
    """Torch's product crashes at other addresses than multiples of 16, where files that are mapped may have codes."""
    whole = torch._weight_int8pack_mm

    def checked(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        assert codes.data_ptr() % 16 == 0
        return whole(x, codes, scale)

    monkeypatch.setattr(torch, "_weight_int8pack_mm", checked)
    scheme, x = parse_scheme("w8a16"), torch.randn(3, 64).bfloat16()
    layer = quantize_module(nn.Linear(64, 32).bfloat16(), scheme, choose_kernel(scheme, "linear"))
    expected, codes = layer(x), layer.codes.data
    room = torch.empty(codes.numel() + 64, dtype=codes.dtype)
    start = -room.data_ptr() % 64 + shift
    layer.codes.data = room[start : start + codes.numel()].view(codes.shape).copy_(codes)
    assert torch.equal(layer(x), expected)
