"""Integer products on the CPU: int8 inputs and weights of 8 to 2 bits, which are unpacked per call.

The path of the products is the one chosen for this processor. A linear layer multiplies its rows, a convolution over
one to three dimensions the columns of its input (im2col), gathered channels last, unless the path computes it without
columns (`direct`); its output has the memory format of its input, as a float convolution's: one of 1280 channels
that gets the other takes up to twice as long. The error against the float64 reference is at most
(2 G + 6) * 2^-24 * (|s| * sum over g of |t_g A_g| + |t_g z_g S_g|  +  |bias|) with the
symbols of `bitplan.plans.kernels.cpu.products`, for G groups: one rounding for each conversion, product and sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from bitplan.plans.formats import WeightFormat
from bitplan.plans.formats.base import Packed
from bitplan.plans.geometry import Geometry
from bitplan.plans.inputs.integer import quantize_rows
from bitplan.plans.kernels.base import INT8, Held, Kernel, declines_geometry, on_cpu, rounded_samples
from bitplan.plans.kernels.cpu.choice import chosen_path
from bitplan.plans.kernels.cpu.direct import takes, write_convolution
from bitplan.plans.kernels.cpu.paths import PATHS, ProductPath
from bitplan.plans.kernels.cpu.products import portions, write_products

COLUMNS = 1 << 24  # bytes of columns held at once


def available(device: torch.device) -> str | None:
    return on_cpu(device) or (None if hasattr(torch, "_int_mm") else "this torch has no int8 product; torch 2.1 has")


@torch.no_grad()
def run(x: Tensor, layer: Held) -> Tensor:
    """The output of the layer, in the type of `x`."""
    packed, inputs, scales = layer.packed, layer.scheme.inputs, layer.scales
    bias = None if layer.bias is None else layer.bias.float()
    if (geometry := layer.geometry) is not None:
        codes, scale = rounded_samples(x, lambda rows: quantize_rows(rows, inputs, scales))
        weight, layout = list(packed.tensors.values()), [packed.format.bits, packed.format.group or 0]
        window = [*geometry.kernel_size, *geometry.stride, *geometry.dilation, *geometry.pads]
        out = convolution(codes, scale, weight, bias, layout, window).movedim(-1, 1).to(x.dtype)
        return out.contiguous() if x.is_contiguous() else out
    codes, scale = quantize_rows(x, inputs, scales)
    out = torch.empty(codes.shape[0], packed.outputs, dtype=torch.float32, device=codes.device)
    write_products(out, codes, scale, packed, bias, PATHS[chosen_path()])
    return out.view(*x.shape[:-1], packed.outputs).to(x.dtype)


@torch.library.custom_op("bitplan::convolution", mutates_args=())
def convolution(
    codes: Tensor, scale: Tensor, weight: Sequence[Tensor], bias: Tensor | None, layout: Sequence[int],
    window: Sequence[int],
) -> Tensor:  # fmt: skip
    """`convolve` on this processor's path, as one operation for `torch.compile` and `torch.export`: how many portions
    the columns of a batch have depends on its size, which a graph for all sizes leaves open.

    Args:
        codes: (N, ..., C) int8.
        scale: (N, 1).
        weight: the tensors of the packed weight, in their order.
        bias: (O,) or None.
        layout: bits, and inputs in a group or 0.
        window: the geometry: kernel, stride and dilation of each dimension, and `pads`.
    """
    geometry, (bits, group) = _geometry(window), layout
    tensors = dict(zip(("codes", "scale", "zero"), weight, strict=False))
    fmt = WeightFormat("int", bits, group or None, "zero" in tensors)
    packed = Packed(tensors, (weight[1].shape[0], codes.shape[-1], *geometry.kernel_size), fmt)
    return convolve(codes, scale, packed, bias, geometry, PATHS[chosen_path()]).movedim(1, -1)


@convolution.register_fake
def _(
    codes: Tensor, scale: Tensor, weight: Sequence[Tensor], bias: Tensor | None, layout: Sequence[int],
    window: Sequence[int],
) -> Tensor:  # fmt: skip
    sizes = _geometry(window).output_size(*codes.shape[1:-1])
    return scale.new_empty(codes.shape[0], *sizes, weight[1].shape[0])


def _geometry(window: Sequence[int]) -> Geometry:
    dims = len(window) // 5
    kernel, stride, dilation = (tuple(window[i * dims : (i + 1) * dims]) for i in range(3))
    return Geometry(kernel, stride, tuple(window[3 * dims :]), dilation)


def convolve(
    codes: Tensor, scale: Tensor, packed: Packed, bias: Tensor | None, geometry: Geometry, path: ProductPath
) -> Tensor:
    """(N, O, ...) float32 of (N, ..., C) codes."""
    sizes = geometry.output_size(*codes.shape[1:-1])
    out = torch.empty(len(codes), *sizes, packed.outputs, dtype=torch.float32, device=codes.device)
    if path.direct and takes(packed, geometry):
        write_convolution(out, codes, scale, packed, bias, geometry)
        return out.movedim(-1, 1)
    for some, *box in portions((len(codes), *sizes), packed.inputs, COLUMNS):
        columns = columns_of(codes[some], geometry, box)
        block = out[(some, *box)].view(-1, packed.outputs)
        by_row = scale[some].repeat_interleave(len(block) // len(scale[some]), 0)
        write_products(block, columns, by_row, packed, bias, path)
    return out.movedim(-1, 1)


def columns_of(codes: Tensor, geometry: Geometry, box: Sequence[slice]) -> Tensor:
    """(N * positions, K) int8: the inputs of each output position in the box, which has a slice for each dimension,
    from the (N, ..., C) codes; K is in the order of the weight, positions of the kernel x C."""
    if all(kernel == stride == 1 for kernel, stride, *_ in geometry.sizes) and not any(geometry.pads):
        return codes[(slice(None), *box)].flatten().view(-1, codes.shape[-1])
    sizes = (*geometry.kernel_size, *geometry.stride, *geometry.dilation, *geometry.pads)
    return im2col(codes, sizes, [some.start for some in box], [some.stop for some in box])


def im2col(codes: Tensor, sizes: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> Tensor:
    """See `columns_of`. sizes: kernel, stride, dilation, pads."""
    dims = len(start)
    kernel, stride, dilation = (sizes[i * dims : (i + 1) * dims] for i in range(3))
    padded = pad(codes, (0, 0, *sizes[3 * dims :]))
    n, *steps, c = padded.stride()
    counts = [last - first for first, last in zip(start, stop, strict=True)]
    moves, reaches = ([step * by for step, by in zip(steps, some, strict=True)] for some in (stride, dilation))
    view = padded.as_strided(
        (len(codes), *counts, *kernel, codes.shape[-1]), (n, *moves, *reaches, c),
        padded.storage_offset() + sum(first * move for first, move in zip(start, moves, strict=True)),
    )  # fmt: skip
    # a flat copy first: where the windows of a row are contiguous, rows would overlap, which the product misreads
    return view.flatten().view(len(codes) * prod(counts), -1)


CPU_INT8 = Kernel(
    "cpu_int8", "int8 products of rounded inputs and packed integer weights", True, INT8, available, run,
    declines_geometry,
)  # fmt: skip
