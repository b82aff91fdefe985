"""What every line of the kernel table promises, against float64 arithmetic on the stored parts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from tests.contracts.kernel_cases import (
    CASES,
    LOOKUP,
    ON_GPU,
    PATH_CASES,
    REAL,
    SCHEMES,
    bound_factor,
    compute,
    convolved,
    exact,
    held,
    ids,
    inputs_and_layers,
    kind_at,
    magnitude,
    skips,
    use,
)
from torch import nn
from torch.nn.functional import embedding, linear

from bitplan.plans.formats.storage import dequantize, quantize
from bitplan.plans.formats.storage import dequantize_rows as lookup__dequantize_rows
from bitplan.plans.inputs.integer import quantize_rows
from bitplan.plans.kernels import (
    KERNELS,
    REFERENCE,
    KernelError,
    available_kernels,
    check_somewhere,
    choose_kernel,
    geometry_of,
    lookup,
)
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import KEEP, WeightFormat, parse_scheme

torch.set_num_threads(1)


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
        rows = KINDS[kind_at(geometry)].rows(x)
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
