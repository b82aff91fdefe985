"""Integer products on the CPU: int8 inputs and weights of any width, unpacked per call in blocks of output channels.

With codes a = round(x / s) of the input and w = t_g (q - z_g) of the weight, for the groups g of inputs,

    y = s * sum over g of (t_g A_g - t_g z_g S_g) + bias,    A_g = sum over k in g of a q,    S_g = sum over k in g of a

where A and S are exact int32 (`torch._int_mm`) and the rest is float32. The error against the float64 reference is at
most (2 G + 6) * 2^-24 * (|s| * sum over g of |t_g A_g| + |t_g z_g S_g|  +  |bias|) for G groups: one rounding for each
conversion, product and sum. A convolution multiplies the weights by the columns of its input (im2col).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from plans.activations import ActivationScales, as_rows, quantize_rows
from plans.formats import Packed, row_blocks, unpack_rows
from plans.kernels.base import BLOCK, Geometry, Kernel, declines_geometry, on_cpu
from plans.scheme import ActivationFormat, Scheme

SEGMENT = 1 << 15  # inputs summed at most in one int32: 2^15 * 255 * 128 < 2^31
ROWS_TIMES_OUTPUTS = 1 << 19  # int32 sums held at once
COLUMN_BYTES = 1 << 26  # im2col columns held at once


@dataclass(frozen=True)
class Terms:
    """The sums over inputs for some output channels. segments: (start, stop) of the inputs that share a scale; scale:
    (outputs, segments); offset: (outputs, segments) scale * zero, None for symmetric weights."""

    segments: tuple[tuple[int, int], ...]
    scale: Tensor
    offset: Tensor | None


def available(device: torch.device) -> str | None:
    return on_cpu(device) or (None if hasattr(torch, "_int_mm") else "this torch has no int8 product; torch 2.1 has")


def declines(scheme: Scheme, geometry: Geometry | None) -> str | None:
    if scheme.weight.kind != "int":
        return f"multiplies integer weights, not {scheme.weight.kind}"
    if scheme.activation.bits == 16:
        return "multiplies integer inputs, not a16"
    if scheme.activation.bits < 8:
        return f"{scheme.activation.bits}-bit inputs would run as int8 at the cost of a8, so they are simulated only"
    return declines_geometry(geometry)


@torch.no_grad()
def run(
    x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, scales: ActivationScales | None,
    geometry: Geometry | None,
) -> Tensor:  # fmt: skip
    """The output of the layer, in the type of `x`."""
    bias = None if bias is None else bias.float()
    if geometry is None:
        return _linear(x, packed, scheme.activation, bias, scales).to(x.dtype)
    codes, scale = quantize_rows(as_rows(x, "conv2d"), scheme.activation, scales)
    return _conv2d(codes.view(x.shape), scale, packed, bias, geometry).to(x.dtype)


def _linear(
    x: Tensor, packed: Packed, activation: ActivationFormat, bias: Tensor | None, scales: ActivationScales | None
) -> Tensor:
    codes, scale = quantize_rows(x, activation, scales)
    out = torch.empty(codes.shape[0], packed.outputs)
    sums = _sums(codes, packed, 1)
    for start, stop in row_blocks(packed, BLOCK):
        weight = unpack_rows(packed, start, stop)
        terms = _terms(packed, start, stop)
        step = max(1, ROWS_TIMES_OUTPUTS // (stop - start))
        for top in range(0, codes.shape[0], step):
            rows = slice(top, top + step)
            block = out[rows, start:stop]
            add_products(block, codes[rows], weight.t(), terms.segments, terms.scale.t().unsqueeze(1))
            if sums is not None and terms.offset is not None:
                block.addmm_(sums[rows], terms.offset.t(), alpha=-1)
            block.mul_(scale[rows])
            if bias is not None:
                block.add_(bias[start:stop])
    return out.view(*x.shape[:-1], packed.outputs)


def _conv2d(codes: Tensor, scale: Tensor, packed: Packed, bias: Tensor | None, geometry: Geometry) -> Tensor:
    height, width = geometry.output_size(codes.shape[2], codes.shape[3])
    out = torch.empty(codes.shape[0], packed.outputs, height * width)
    padded = pad(codes, geometry.pads)
    rows = max(1, COLUMN_BYTES // (codes.shape[0] * packed.inputs * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        columns = im2col(padded, geometry, width, (top, bottom))
        _conv_block(out[:, :, top * width : bottom * width], columns, packed)
    out.mul_(scale[:, :, None])
    if bias is not None:
        out.add_(bias[:, None])
    return out.view(-1, packed.outputs, height, width)


def _conv_block(out: Tensor, batch: Tensor, packed: Packed) -> None:
    """out (N, O, L) = the weight times the columns `batch` (N, K, L), scales of the input apart."""
    sums = [_sums(columns, packed, 0) for columns in batch]
    for start, stop in row_blocks(packed, BLOCK):
        weight = unpack_rows(packed, start, stop)
        terms = _terms(packed, start, stop)
        for sample, (columns, total) in enumerate(zip(batch, sums, strict=True)):
            block = out[sample, start:stop]
            add_products(block, weight, columns, terms.segments, terms.scale.t().unsqueeze(2))
            if total is not None and terms.offset is not None:
                block.addmm_(terms.offset, total, alpha=-1)


def add_products(
    out: Tensor, left: Tensor, right: Tensor, segments: Sequence[tuple[int, int]], scale: Sequence[Tensor] | Tensor
) -> None:
    """out (A, B) float32 = sum over segments of scale * (left (A, K) @ right (K, B) over its inputs), of int8 factors.

    Each product is exact in int32. scale: one for each segment, that broadcasts against out.
    """
    whole = torch.empty(out.shape, dtype=torch.int32, device=out.device)
    part = torch.empty(out.shape, device=out.device) if len(segments) > 1 else None
    for index, (start, stop) in enumerate(segments):
        torch._int_mm(left[:, start:stop], right[start:stop], out=whole)
        if part is None or index == 0:
            out.copy_(whole).mul_(scale[index])
        else:
            out.addcmul_(part.copy_(whole), scale[index])


def im2col(padded: Tensor, geometry: Geometry, width: int, rows: tuple[int, int]) -> Tensor:
    """(N, K, L) int8 columns of the output rows `rows` = (top, bottom), `width` positions each, from the padded
    (N, C, H, W) codes; K in the order of the weight, C x kh x kw."""
    samples, channels = padded.shape[:2]
    n, c, h, w = padded.stride()
    view = padded[:, :, rows[0] * geometry.stride[0] :].as_strided(
        (samples, channels, *geometry.kernel_size, rows[1] - rows[0], width),
        (n, c, h * geometry.dilation[0], w * geometry.dilation[1], h * geometry.stride[0], w * geometry.stride[1]),
    )
    return view.reshape(samples, -1, (rows[1] - rows[0]) * width)


def _segments(packed: Packed) -> Iterator[tuple[int, int, int]]:
    """(group, start, stop): every group, cut where its sum could leave int32."""
    size = packed.format.group or packed.inputs
    for group, start in enumerate(range(0, packed.inputs, size)):
        end = min(start + size, packed.inputs)
        for first in range(start, end, SEGMENT):
            yield group, first, min(first + SEGMENT, end)


def _terms(packed: Packed, start: int, stop: int) -> Terms:
    """The terms of the output channels start .. stop."""
    assert packed.scale is not None
    groups = [group for group, _, _ in _segments(packed)]
    scale = packed.scale[start:stop, groups]
    offset = None
    if packed.zero is not None:
        offset = scale * (packed.zero[start:stop, groups].float() - (1 << (packed.format.bits - 1)))
    return Terms(tuple((first, last) for _, first, last in _segments(packed)), scale, offset)


def _sums(codes: Tensor, packed: Packed, axis: int) -> Tensor | None:
    """The sums of input codes over each segment along `axis`, as float32; None for symmetric weights."""
    if packed.zero is None:
        return None
    parts = [codes.narrow(axis, first, last - first) for _, first, last in _segments(packed)]
    return torch.stack([part.sum(axis, dtype=torch.int32) for part in parts], axis).float()


CPU_INT8 = Kernel(
    "cpu_int8", "int8 products of rounded inputs and packed integer weights", True, available, declines, run
)
