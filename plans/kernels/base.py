"""The kernel contract, and the geometry of a convolution.

Shape letters: O output channels, K inputs (positions of the kernel x C), M rows of a linear input, N samples, C
channels; `...` after N, C or before C are the one to three sizes that a convolution walks over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, pad

from bitplan.plans.formats import Packed
from bitplan.plans.inputs.integer import ActivationScales
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import Scheme

BLOCK = 1 << 21  # weights unpacked at once: about a level-2 cache of codes


class KernelError(ValueError):
    """No kernel runs what was asked."""


@dataclass(frozen=True)
class Geometry:
    """A convolution over one to three dimensions, one size for each. pads: two for each, the last dimension first, in
    the order of torch.nn.functional.pad: (left, right, top, bottom)."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    padding_mode: str = "zeros"

    @classmethod
    def plain(cls, dims: int) -> Geometry:
        """A kernel of size one."""
        ones = (1,) * dims
        return cls(ones, ones, (0, 0) * dims, ones)

    @property
    def sizes(self) -> tuple[tuple[int, int, int, int], ...]:
        """(kernel, stride, dilation, both pads together) of each dimension."""
        both = [before + after for before, after in zip(self.pads[::2], self.pads[1::2], strict=True)]
        return tuple(zip(self.kernel_size, self.stride, self.dilation, both[::-1], strict=True))

    def output_size(self, *sizes: int) -> tuple[int, ...]:
        """For an input of these sizes, before padding."""
        return tuple(
            (size + pads - dilation * (kernel - 1) - 1) // stride + 1
            for size, (kernel, stride, dilation, pads) in zip(sizes, self.sizes, strict=True)
        )


CONVOLUTIONS = tuple(getattr(nn, kind.layer) for kind in KINDS.values() if kind.dims)
MULTIPLIED = tuple(kind.name for kind in KINDS.values() if not kind.looks_up)
Run = Callable[[Tensor, Packed, Scheme, Tensor | None, ActivationScales | None, Geometry | None], Tensor]


@dataclass(frozen=True)
class Kernel:
    """One way to run a layer.

    real: the stored codes are what it computes with or unpacks per call; else it simulates
    available: device -> None, or why it does not run there
    declines: (scheme, geometry, None but for a convolution) -> None, or why it does not run that
    run: (x, packed weight, scheme, bias, calibrated ranges, geometry) -> output in the type of x; x is (..., K) for a
    linear layer, (N, C, ...) for a convolution, integers for an embedding, whose output is float32
    kinds: of layers that it runs
    """

    name: str
    says: str
    real: bool
    available: Callable[[torch.device], str | None]
    declines: Callable[[Scheme, Geometry | None], str | None]
    run: Run
    kinds: tuple[str, ...] = MULTIPLIED

    def supports(
        self, scheme: Scheme, kind: str, device: torch.device | str = "cpu", geometry: Geometry | None = None
    ) -> str | None:
        """None if it runs `scheme` on a layer of `kind` (of `bitplan.plans.kinds`) on `device`, else the reason in
        words."""
        return self.available(torch.device(device)) or self.refuses(scheme, kind, geometry)

    def refuses(self, scheme: Scheme, kind: str, geometry: Geometry | None = None) -> str | None:
        """The same on whatever device."""
        if reason := KINDS[kind].refuses(scheme):
            return reason
        if kind not in self.kinds:
            return f"runs {', '.join(self.kinds)}, not {kind}"
        plain = Geometry.plain(KINDS[kind].dims) if KINDS[kind].dims else None
        return self.declines(scheme, geometry or plain)


def on_cpu(device: torch.device) -> str | None:
    return None if device.type == "cpu" else f"runs on cpu, not on {device.type}"


def declines_geometry(geometry: Geometry | None) -> str | None:
    """Why the real kernels do not run this convolution."""
    if geometry is None:
        return None
    if geometry.groups > 1:
        return f"a convolution in {geometry.groups} groups has no kernel"
    return None if geometry.padding_mode == "zeros" else f"padding mode {geometry.padding_mode} has no kernel"


def declines_int8(scheme: Scheme, geometry: Geometry | None) -> str | None:
    """Why products of int8 inputs and integer weights do not run this."""
    if scheme.weight.kind != "int":
        return f"multiplies integer weights, not {scheme.weight.kind}"
    if scheme.activation.bits == 16:
        return "multiplies integer inputs, not a16"
    if scheme.activation.bits < 8:
        return f"{scheme.activation.bits}-bit inputs would run as int8 at the cost of a8, so they are simulated only"
    return declines_geometry(geometry)


def declines_float(scheme: Scheme, geometry: Geometry | None) -> str | None:
    """Why products of inputs as they come and packed weights do not run this."""
    if scheme.activation.bits != 16:
        return f"takes a16 inputs only, not {scheme.activation}"
    if scheme.weight.kind == "keep":
        return "`keep` stores no codes to unpack"
    return declines_geometry(geometry)


def geometry_of(module: nn.Module) -> Geometry | None:
    """The geometry of a convolution, None for any other module."""
    if not isinstance(module, CONVOLUTIONS):
        return None
    dims = len(module.kernel_size)
    return Geometry(
        module.kernel_size, _sizes(module.stride, dims), _pads(module, dims), _sizes(module.dilation, dims),
        module.groups, module.padding_mode,
    )  # fmt: skip


def rounded_samples(x: Tensor, quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(N, ..., C) int8 codes of (N, C, ...), and a scale for each sample.

    quantize: rows to codes and scales. Codes are moved, if they must be, for they are a quarter as long.
    """
    last = x.movedim(1, -1).is_contiguous()
    held = x.movedim(1, -1) if last else x
    codes, scale = quantize(held.reshape(len(x), -1))
    codes = codes.view(held.shape)
    return (codes if last else codes.movedim(1, -1).contiguous()), scale


def float_conv(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The convolution in floating point, any padding."""
    before, after = geometry.pads[::2], geometry.pads[1::2]
    padding = before[::-1]
    if geometry.padding_mode != "zeros" or before != after:
        mode = "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode
        x, padding = pad(x, geometry.pads, mode=mode), (0,) * len(padding)
    conv = (conv1d, conv2d, conv3d)[len(padding) - 1]
    return conv(x, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups)


def _pads(module: Any, dims: int) -> tuple[int, ...]:
    """As in `Geometry`."""
    if module.padding == "valid":
        return (0, 0) * dims
    if module.padding == "same":
        reach = (d * (k - 1) for d, k in zip(module.dilation[::-1], module.kernel_size[::-1], strict=True))
        return tuple(size for both in reach for size in (both // 2, both - both // 2))
    return tuple(size for one in _sizes(module.padding, dims)[::-1] for size in (one, one))


def _sizes(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dims
