"""The kernel contract, and the geometry of a convolution.

Shape letters: O output channels, K inputs (kh x kw x C), M rows of a linear input, N samples, L = Ho x Wo positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from plans.activations import ActivationScales
from plans.formats import Packed
from plans.scheme import Scheme

BLOCK = 1 << 21  # weights unpacked at once: about a level-2 cache of codes


class KernelError(ValueError):
    """No kernel runs what was asked."""


@dataclass(frozen=True)
class Geometry:
    """A two-dimensional convolution. pads: (left, right, top, bottom), in the order of torch.nn.functional.pad."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(Ho, Wo) for an input of height x width, before padding."""
        left, right, top, bottom = self.pads
        padded = (height + top + bottom, width + left + right)
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        rows, columns = ((p - r) // s + 1 for p, r, s in zip(padded, reach, self.stride, strict=True))
        return rows, columns


Run = Callable[[Tensor, Packed, Scheme, Tensor | None, ActivationScales | None, Geometry | None], Tensor]


@dataclass(frozen=True)
class Kernel:
    """One way to run a layer.

    real: the stored codes are what it computes with or unpacks per call; else it simulates
    available: device -> None, or why it does not run there
    declines: (scheme, geometry, None for a linear layer) -> None, or why it does not run that
    run: (x, packed weight, scheme, bias, calibrated ranges, geometry) -> output in the type of x; x is (..., K) for a
    linear layer, (N, C, H, W) for a convolution
    """

    name: str
    says: str
    real: bool
    available: Callable[[torch.device], str | None]
    declines: Callable[[Scheme, Geometry | None], str | None]
    run: Run

    def supports(
        self, scheme: Scheme, kind: str, device: torch.device | str = "cpu", geometry: Geometry | None = None
    ) -> str | None:
        """None if it runs `scheme` on a layer of `kind` (`linear`, `conv2d`) on `device`, else the reason in words."""
        if kind == "conv2d" and scheme.activation.first_token:
            return "a convolution's input has no first token"
        geometry = (geometry or Geometry((1, 1))) if kind == "conv2d" else None
        return self.available(torch.device(device)) or self.declines(scheme, geometry)


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
    """The geometry of a Conv2d, None for any other module."""
    if not isinstance(module, nn.Conv2d):
        return None
    height, width = _pads(module)
    return Geometry(
        _pair(module.kernel_size), _pair(module.stride), (*width, *height), _pair(module.dilation), module.groups,
        module.padding_mode,
    )  # fmt: skip


def rounded_samples(x: Tensor, quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(N, H, W, C) int8 codes of (N, C, H, W), and a scale for each sample.

    quantize: rows to codes and scales. Codes are moved, if they must be, for they are a quarter as long.
    """
    last = x.is_contiguous(memory_format=torch.channels_last)
    held = x.movedim(1, -1) if last else x
    codes, scale = quantize(held.reshape(len(x), -1))
    codes = codes.view(held.shape)
    return (codes if last else codes.movedim(1, -1).contiguous()), scale


def float_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The convolution in floating point, any padding."""
    left, right, top, bottom = geometry.pads
    padding = (top, left)
    if geometry.padding_mode != "zeros" or (left, top) != (right, bottom):
        mode = "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode
        x, padding = pad(x, geometry.pads, mode=mode), (0, 0)
    return conv2d(x, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups)


def _pads(module: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int]]:
    if module.padding == "valid":
        return (0, 0), (0, 0)
    if module.padding == "same":
        height, width = (d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
        return (height // 2, height - height // 2), (width // 2, width - width // 2)
    top, left = _pair(module.padding)
    return (top, top), (left, left)


def _pair(value: object) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple) else (value, value)
    return first, second
