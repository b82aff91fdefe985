"""The kernel contract: what a kernel is, and what it is called with.

Shape letters: O output channels, K inputs (positions of the kernel x C), M rows of a linear input, N samples, C
channels; `...` after N, C or before C are the one to three sizes that a convolution walks over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, pad

from bitplan.plans.formats.base import Packed
from bitplan.plans.geometry import Geometry
from bitplan.plans.inputs.base import ActivationScales
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import Scheme
from bitplan.plans.takes import ANY, INTEGERS, Takes
from bitplan.plans.transforms.base import Fitted

BLOCK = 1 << 21  # weights unpacked at once: about a level-2 cache of codes
CONVOLUTIONS = tuple(getattr(nn, kind.layer) for kind in KINDS.values() if kind.dims)
MULTIPLIED = tuple(kind.name for kind in KINDS.values() if not kind.looks_up)


class KernelError(ValueError):
    """No kernel runs a scheme, or a packed layer is used in a way that it cannot serve."""


@dataclass(frozen=True, eq=False)
class Held:
    """The contents of a packed layer, from which a kernel computes its output.

    Attributes:
        packed: the stored weight, after the scheme's transforms.
        scheme: how it is stored and how inputs are rounded.
        kind: the kind of the layer, one of `bitplan.plans.kinds`.
        geometry: the geometry of a convolution; None for other layers.
        bias: (O,) or None.
        scales: the calibrated ranges of static inputs as numbers; None for other inputs.
        fitted: the parameters of the transforms, and `input_range`, by the names of `bitplan.plans.numerics`.
    """

    packed: Packed
    scheme: Scheme
    kind: str
    geometry: Geometry | None = None
    bias: Tensor | None = None
    scales: ActivationScales | None = None
    fitted: Fitted = field(default_factory=dict)


def never(scheme: Scheme, geometry: Geometry | None) -> str | None:
    """Nothing more is declined than what `takes` does not list."""
    return None


@dataclass(frozen=True)
class Kernel:
    """One way to run a layer.

    Attributes:
        name: as in profiles and plans.
        says: one line for tables.
        real: whether it computes with the stored codes, or unpacks them in each call; else it simulates.
        takes: the terms of schemes that it runs; all others are declined by name.
        available: device -> None, or why it does not run there.
        run: (input, what the layer holds) -> output in the type of the input, which is (..., K) for a linear layer,
            (N, C, ...) for a convolution, integers for an embedding, whose output is float32. Never called with an
            empty input; layers call `output_of`.
        declines: (scheme that it takes, geometry of a convolution or None) -> None, or why it does not run that.
        kinds: of layers that it runs.
    """

    name: str
    says: str
    real: bool
    takes: Takes
    available: Callable[[torch.device], str | None]
    run: Callable[[Tensor, Held], Tensor]
    declines: Callable[[Scheme, Geometry | None], str | None] = never
    kinds: tuple[str, ...] = MULTIPLIED

    def supports(
        self, scheme: Scheme, kind: str, device: torch.device | str = "cpu", geometry: Geometry | None = None
    ) -> str | None:
        """None if it runs `scheme` on a layer of `kind` (of `bitplan.plans.kinds`) on `device`, else the reason in
        words."""
        return self.available(torch.device(device)) or self.refuses(scheme, kind, geometry)

    def refuses(self, scheme: Scheme, kind: str, geometry: Geometry | None = None) -> str | None:
        """The same for any device."""
        if reason := KINDS[kind].refuses(scheme):
            return reason
        if kind not in self.kinds:
            return f"runs {', '.join(self.kinds)}, not {kind}"
        plain = Geometry.plain(KINDS[kind].dims) if KINDS[kind].dims else None
        return self.takes.declines(scheme) or self.declines(scheme, geometry or plain)


def output_of(kernel: Kernel, x: Tensor, layer: Held) -> Tensor:
    """What `kernel` gives for `x`, and for an input without samples or rows an empty output, whatever the kernel.

    Raises KernelError for an input of another shape than the layer takes, which not every kernel would notice.
    """
    shape, geometry, looks_up = layer.packed.shape, layer.geometry, KINDS[layer.kind].looks_up
    if geometry is None:
        fits = looks_up or x.shape[-1:] == shape[1:]
    else:
        fits = x.dim() == len(shape) and x.shape[1] == shape[1] * geometry.groups
    if fits and x.numel():
        return kernel.run(x, layer)
    if looks_up:
        return torch.empty(*x.shape, layer.packed.inputs, dtype=torch.float32, device=x.device)
    if fits and geometry is None:
        return x.new_empty(*x.shape[:-1], shape[0])
    if fits and geometry is not None and prod(x.shape[2:]):
        return x.new_empty(0, shape[0], *geometry.output_size(*x.shape[2:]))
    raise KernelError(f"an input of shape {tuple(x.shape)} does not fit a {layer.kind} layer with a weight of shape "
                      f"{tuple(shape)}{'' if x.numel() else '; only the number of samples may be 0'}")  # fmt: skip


INT8 = Takes(
    {"int": INTEGERS}, {"int": {"bits": (8,), "static": ANY}}, ("first",),
    {"inputs.bits": "fewer bits would run as int8 at the cost of a8, so they are simulated only",
     "inputs.float": "it multiplies integers"},
)  # fmt: skip
FLOAT_INPUTS = Takes(
    {"int": INTEGERS, "fp8": {}}, {"float": {}}, (), {"weights.keep": "`keep` stores no codes to unpack"}
)


def on_cpu(device: torch.device) -> str | None:
    return None if device.type == "cpu" else f"runs on cpu, not on {device.type}"


def declines_geometry(scheme: Scheme, geometry: Geometry | None) -> str | None:
    """Why the real kernels do not run this convolution."""
    if geometry is None:
        return None
    if geometry.groups > 1:
        return f"a convolution in {geometry.groups} groups has no kernel"
    return None if geometry.padding_mode == "zeros" else f"padding mode {geometry.padding_mode} has no kernel"


def geometry_of(module: nn.Module) -> Geometry | None:
    """The geometry of a convolution, None for any other module."""
    if not isinstance(module, CONVOLUTIONS):
        return None
    dims = len(module.kernel_size)
    padding = module.padding if isinstance(module.padding, str) else _sizes(module.padding, dims)
    return Geometry(
        tuple(module.kernel_size), _sizes(module.stride, dims), padding, _sizes(module.dilation, dims), module.groups,
        module.padding_mode,
    )  # fmt: skip


def rounded_samples(x: Tensor, quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(N, ..., C) int8 codes of (N, C, ...), and a scale for each sample.

    quantize: rows to codes and scales. Codes are moved, if they must be, for they are a quarter as long.
    """
    last = x.movedim(1, -1).is_contiguous()
    held = x.movedim(1, -1) if last else x
    codes, scale = quantize(held.flatten(1))
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


def _sizes(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, tuple | list) else (value,) * dims
