"""What the GPU kernels share: where they run, and their launches as operators that torch.compile leaves whole.

An operator states its output's shape (`register_fake`), so that a compiled pipeline has no graph break at it. It is
opaque, so nothing is fused into it: bias, scales and casts are in the Triton kernels already. Triton is imported by the
first launch, never by the table.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from bitplan.plans.inputs import InputFormat
from bitplan.plans.inputs.base import ActivationError, ActivationScales
from bitplan.plans.kernels.base import Held

OLDEST = (3, 4)  # Triton with tuples as arguments and timings kept on disk
KINDS = ("linear", "conv2d")  # of layers that the Triton kernels walk over
CAPABILITY = (8, 0)  # the oldest devices that the kernels are compiled for


def on_cuda(device: torch.device) -> str | None:
    """None on a CUDA device, else the reason in words."""
    if device.type != "cuda":
        return f"runs on cuda, not on {device.type}"
    return None if torch.cuda.is_available() else "runs on cuda, and torch finds no such device"


def with_triton(device: torch.device) -> str | None:
    """None on a CUDA device where Triton compiles, else the reason in words."""
    if reason := on_cuda(device):
        return reason
    if importlib.util.find_spec("triton") is None:
        return "needs Triton; pip install 'bitplan[gpu]'"
    import triton

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST:
        return f"needs Triton 3.4, found {triton.__version__}; install a newer torch"
    if triton.knobs.runtime.interpret:
        return "TRITON_INTERPRET is set, so that Triton does not compile"
    found = torch.cuda.get_device_capability(device)
    return None if found >= CAPABILITY else f"needs a device of capability 8.0, not {found[0]}.{found[1]}"


def rounded(x: Tensor, fmt: InputFormat, scales: ActivationScales | None) -> tuple[Tensor, Tensor]:
    """`quantize_rows` of x (..., K): codes (M, K) int8 and row scales (M, 1), to the bit. Raises ActivationError."""
    if not fmt.static:
        return round_rows(x.reshape(-1, x.shape[-1]), fmt.bits, [], 1)
    if scales is None:
        raise ActivationError(f"`{fmt}` has no calibrated range for this layer; calibrate it first")
    if scales.first is None:
        return round_rows(x.reshape(-1, x.shape[-1]), fmt.bits, [scales.tensor], 1)
    if x.dim() < 3:
        raise ActivationError(f"`+first` needs an input (batch, tokens, features), got {x.dim()} dimensions")
    return round_rows(x.reshape(-1, x.shape[-1]), fmt.bits, [scales.tensor, scales.first], x.shape[-2])


def multiplied(inputs: Sequence[Tensor], layer: Held, dtype: torch.dtype) -> Tensor:
    """The output of a layer, of `dtype`: (rows, O), or (N, O, Ho, Wo) channels last.

    Args:
        inputs: [codes, row scales] or [floats], of shape (rows, K) or (N, H, W, C).
        layer: with codes, scale and, of affine weights, zero.
        dtype: of the output.
    """
    window: list[int] = []
    if (geometry := layer.geometry) is not None:
        left, _, top, _ = geometry.pads
        size = geometry.output_size(inputs[0].shape[1], inputs[0].shape[2])
        window = [*geometry.kernel_size, *geometry.stride, *geometry.dilation, top, left, *size]
    fmt, held = layer.packed.format, layer.packed.tensors
    weight = [held[name] for name in ("codes", "scale", "zero") if name in held]
    bias = None if layer.bias is None else layer.bias.float()
    out = product(list(inputs), weight, bias, [fmt.bits, fmt.group or 0], window, dtype)
    return out.movedim(-1, 1) if window else out


@torch.library.custom_op("bitplan::round_rows", mutates_args=())
def round_rows(x: Tensor, bits: int, ranges: Sequence[float], tokens: int) -> tuple[Tensor, Tensor]:
    from bitplan.plans.kernels.gpu.rounding import round_rows as triton_rounding_round_rows

    return triton_rounding_round_rows(x.contiguous(), bits, ranges, tokens)


@round_rows.register_fake
def _(x: Tensor, bits: int, ranges: Sequence[float], tokens: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(x.shape[0], 1, dtype=torch.float32)


@torch.library.custom_op("bitplan::product", mutates_args=())
def product(
    inputs: Sequence[Tensor], weight: Sequence[Tensor], bias: Tensor | None, layout: Sequence[int],
    window: Sequence[int], dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    from bitplan.plans.kernels.gpu.product import product as triton_product_product

    out = _output(inputs, weight, window, dtype)
    inputs = [tensor.contiguous() for tensor in inputs]
    triton_product_product(inputs, weight, bias, layout, window[:-2], out)
    return out


@product.register_fake
def _(
    inputs: Sequence[Tensor], weight: Sequence[Tensor], bias: Tensor | None, layout: Sequence[int],
    window: Sequence[int], dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return _output(inputs, weight, window, dtype)


def _output(inputs: Sequence[Tensor], weight: Sequence[Tensor], window: Sequence[int], dtype: torch.dtype) -> Tensor:
    return inputs[0].new_empty(inputs[0].shape[0], *window[-2:], weight[1].shape[0], dtype=dtype)
