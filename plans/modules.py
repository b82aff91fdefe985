"""Layers that hold packed weights, in place of nn.Linear and nn.Conv2d.

They are subclasses of the float modules, so that code which looks for those finds them. Their tensors are buffers:
`codes`, `scale`, `zero` (affine only) and `input_range` (static activations only); the bias stays a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from plans.activations import ActivationError, ActivationScales
from plans.formats import Packed, dequantize, quantize
from plans.kernels import Kernel, KernelError, geometry_of
from plans.scheme import Scheme

WEIGHT_BUFFERS = ("codes", "scale", "zero")
_LINEAR_ATTRIBUTES = ("in_features", "out_features")
_CONV_ATTRIBUTES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                    "padding_mode", "transposed", "output_padding")  # fmt: skip


class _Packed(nn.Module):
    """What both layers share; made by `quantize_module` only."""

    codes: Tensor
    scale: Tensor | None
    zero: Tensor | None
    input_range: Tensor | None
    compute: Tensor
    bias: nn.Parameter | None

    def _fill(
        self, module: nn.Linear | nn.Conv2d, scheme: Scheme, kernel: Kernel, scales: ActivationScales | None
    ) -> None:
        nn.Module.__init__(self)
        packed = quantize(module.weight, scheme.weight)
        self.shape, self.scheme, self.kernel = packed.shape, scheme, kernel
        for name in WEIGHT_BUFFERS:
            self.register_buffer(name, getattr(packed, name))
        self.register_buffer("input_range", _range_tensor(scheme, scales, packed.codes.device))
        # empty; `.to(dtype)` reaches it as it does any float tensor, so it says in which type the layer computes
        self.register_buffer("compute", module.weight.new_empty(0), persistent=False)
        self.register_parameter("bias", module.bias)
        self.train(module.training)

    @property
    def packed(self) -> Packed:
        """The stored weight."""
        return Packed(self.codes, self.scale, self.zero, self.shape, self.scheme.weight)

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for, in the type of the layer; made anew at each read, and read-only."""
        return dequantize(self.packed).to(self.compute.dtype)

    @property
    def scales(self) -> ActivationScales | None:
        """The calibrated ranges of static activations."""
        return None if self.input_range is None else ActivationScales(*self.input_range.tolist())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # casts of the model to another float type must reach neither fp8 codes nor float32 scales
        stored = {name: self._buffers.pop(name) for name in (*WEIGHT_BUFFERS, "input_range")}
        try:
            super()._apply(fn, recurse)
            moved = {name: None if tensor is None else _move(fn, tensor) for name, tensor in stored.items()}
        except BaseException:
            self._buffers.update(stored)
            raise
        self._buffers.update(moved)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scheme={self.scheme}, kernel={self.kernel.name}"


class QuantLinear(_Packed, nn.Linear):
    """nn.Linear with packed weights: (..., in_features) of any float type to (..., out_features) of the same."""

    def __init__(self, module: nn.Linear, scheme: Scheme, kernel: Kernel, scales: ActivationScales | None) -> None:
        self._fill(module, scheme, kernel, scales)
        for name in _LINEAR_ATTRIBUTES:
            setattr(self, name, getattr(module, name))

    def forward(self, input: Tensor) -> Tensor:
        return self.kernel.run(input, self.packed, self.scheme, self.bias, self.scales, None)


class QuantConv2d(_Packed, nn.Conv2d):
    """nn.Conv2d with packed weights: (N, C, H, W) or (C, H, W) of any float type to the same type."""

    def __init__(self, module: nn.Conv2d, scheme: Scheme, kernel: Kernel, scales: ActivationScales | None) -> None:
        self._fill(module, scheme, kernel, scales)
        for name in _CONV_ATTRIBUTES:
            setattr(self, name, getattr(module, name))
        self.geometry = geometry_of(module)

    def forward(self, input: Tensor) -> Tensor:
        batch = input if input.dim() == 4 else input.unsqueeze(0)
        out = self.kernel.run(batch, self.packed, self.scheme, self.bias, self.scales, self.geometry)
        return out if input.dim() == 4 else out.squeeze(0)


def kind_of(module: nn.Module) -> str | None:
    """`linear` or `conv2d` for a layer that can be quantized; None for others, and for those with a forward of their
    own, which could do anything."""
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return "linear"
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:
        return "conv2d"
    return None


def quantize_module(
    module: nn.Module, scheme: Scheme, kernel: Kernel, scales: ActivationScales | None = None
) -> QuantLinear | QuantConv2d:
    """`module`, a float nn.Linear or nn.Conv2d, with its weight stored and run as `scheme` says; it shares the bias.

    Raises KernelError where `kernel` does not run that layer, ActivationError where static activations lack a range,
    FormatError for weights that cannot be stored.
    """
    kind = kind_of(module)
    if kind is None:
        raise KernelError(f"a {type(module).__name__} cannot be quantized; only nn.Linear and nn.Conv2d can")
    reason = kernel.supports(scheme, kind, module.weight.device, geometry_of(module))
    if reason:
        raise KernelError(f"{kernel.name} does not run {scheme} on this {kind} layer: {reason}")
    made: Any = QuantLinear if kind == "linear" else QuantConv2d
    return made(module, scheme, kernel, scales)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a layer's stored weight, bias apart: codes, scale and zero, or the float weight."""
    return module.packed.nbytes if isinstance(module, _Packed) else module.weight.nbytes


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers of a module, each tensor once, bias included."""
    return sum(tensor.nbytes for tensor in {*module.parameters(), *module.buffers()})


def _range_tensor(scheme: Scheme, scales: ActivationScales | None, device: torch.device) -> Tensor | None:
    if not scheme.activation.static:
        return None
    if scales is None or (scheme.activation.first_token and scales.first is None):
        raise ActivationError(f"{scheme} needs the calibrated range of this layer's input; calibrate it first")
    held = [scales.tensor, scales.first] if scheme.activation.first_token else [scales.tensor]
    return torch.tensor(held, dtype=torch.float32, device=device)


def _move(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    moved = fn(tensor)
    return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
