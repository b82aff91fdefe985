"""The kernels, schemes, layers and inputs of the contract of kernels, and what plain arithmetic makes of them."""

from __future__ import annotations

import importlib.util
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, linear

from bitplan.plans.formats.storage import Packed, dequantize, shaped
from bitplan.plans.inputs.base import ActivationScales
from bitplan.plans.kernels import (
    KERNELS,
    REFERENCE,
    Geometry,
    Held,
    Kernel,
    geometry_of,
)
from bitplan.plans.kernels.cpu import choice
from bitplan.plans.kernels.cpu import int8 as cpu_int8
from bitplan.plans.kernels.cpu.paths import INT_MM, PATHS, ProductPath
from bitplan.plans.scheme import EXAMPLES, Scheme, parse_scheme

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
    return Held(packed, scheme, kind_at(geometry), geometry, bias, ranges if scheme.inputs.static else None)


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


def kind_at(geometry: Geometry | None) -> str:
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
    return scheme.transforms and x.dim() < 3 or kernel.refuses(scheme, kind_at(geometry), geometry) is not None


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
