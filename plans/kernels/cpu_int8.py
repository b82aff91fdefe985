"""Integer products on the CPU: int8 inputs and weights of 8 to 2 bits, which are unpacked per call.

A linear layer multiplies its rows, a convolution the columns of its input (im2col), gathered channels last; its output
has the memory format of its input, as a float convolution's: one of 1280 channels that gets the other takes up to twice
as long. The error against the float64 reference is at most (2 G + 6) * 2^-24 * (|s| * sum over g of
|t_g A_g| + |t_g z_g S_g|  +  |bias|) in the words of `plans.kernels.products`, for G groups: one rounding for each
conversion, product and sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from plans.activations import ActivationScales, quantize_rows
from plans.formats import Packed
from plans.kernels.base import Geometry, Kernel, declines_int8, on_cpu, rounded_samples
from plans.kernels.last_input import LastInput
from plans.kernels.products import write_products
from plans.scheme import Scheme

COLUMNS = 1 << 24  # bytes of columns held at once
_LAST = LastInput()


def available(device: torch.device) -> str | None:
    return on_cpu(device) or (None if hasattr(torch, "_int_mm") else "this torch has no int8 product; torch 2.1 has")


@torch.no_grad()
def run(
    x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, scales: ActivationScales | None,
    geometry: Geometry | None,
) -> Tensor:  # fmt: skip
    """The output of the layer, in the type of `x`."""
    bias = None if bias is None else bias.float()
    if geometry is not None:
        codes, scale = rounded_samples(x, lambda rows: quantize_rows(rows, scheme.activation, scales))
        out = _conv2d(codes, scale, packed, bias, geometry).to(x.dtype)
        return out if x.is_contiguous(memory_format=torch.channels_last) else out.contiguous()
    codes, scale = _LAST.quantize_rows(x, scheme.activation, scales)
    out = torch.empty(len(codes), packed.outputs)
    write_products(out, codes, scale, packed, bias)
    return out.view(*x.shape[:-1], packed.outputs).to(x.dtype)


def _conv2d(codes: Tensor, scale: Tensor, packed: Packed, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """(N, O, Ho, Wo) float32 of (N, H, W, C) codes."""
    samples = len(codes)
    height, width = geometry.output_size(codes.shape[1], codes.shape[2])
    out = torch.empty(samples, height, width, packed.outputs)
    for some, rows in _portions(samples, height, width * packed.inputs):
        columns = columns_of(codes[some], geometry, width, rows)
        block = out[some, rows].view(-1, packed.outputs)
        write_products(block, columns, scale[some].repeat_interleave(len(block) // len(scale[some]), 0), packed, bias)
    return out.movedim(-1, 1)


def _portions(samples: int, height: int, row: int) -> Iterator[tuple[slice, slice]]:
    """Samples and output rows whose columns may be held at once, of `row` bytes each; their outputs lie in a run."""
    if samples * height * row <= COLUMNS:
        yield slice(0, samples), slice(0, height)
        return
    step = max(1, COLUMNS // row)
    for sample in range(samples):
        for top in range(0, height, step):
            yield slice(sample, sample + 1), slice(top, min(top + step, height))


def columns_of(codes: Tensor, geometry: Geometry, width: int, rows: slice) -> Tensor:
    """(N * positions, K) int8: what each output position of the output rows, `width` to a row, multiplies of the
    (N, H, W, C) codes; K in the order of the weight, kh x kw x C."""
    if geometry.kernel_size == geometry.stride == (1, 1) and not any(geometry.pads):
        return codes[:, rows].reshape(-1, codes.shape[-1])
    sizes = (*geometry.kernel_size, *geometry.stride, *geometry.dilation, *geometry.pads)
    return im2col(codes, sizes, rows.start, rows.stop, width)


@torch.library.custom_op("bitplan::im2col", mutates_args=())
def im2col(codes: Tensor, sizes: Sequence[int], start: int, stop: int, width: int) -> Tensor:
    """See `columns_of`. sizes: kernel, stride, dilation, pads. For `torch.compile` it is one operation: fused with the
    rounding before it, that would be done anew for each of the kernel's positions."""
    kernel, stride, dilation, (left, right, top, bottom) = sizes[:2], sizes[2:4], sizes[4:6], sizes[6:]
    padded = pad(codes, (0, 0, left, right, top, bottom))[:, start * stride[0] :]
    n, h, w, c = padded.stride()
    view = padded.as_strided(
        (len(codes), stop - start, width, *kernel, codes.shape[-1]),
        (n, h * stride[0], w * stride[1], h * dilation[0], w * dilation[1], c),
    )
    return view.reshape(len(codes) * (stop - start) * width, -1)


@im2col.register_fake
def _(codes: Tensor, sizes: Sequence[int], start: int, stop: int, width: int) -> Tensor:
    return codes.new_empty(len(codes) * (stop - start) * width, sizes[0] * sizes[1] * codes.shape[-1])


CPU_INT8 = Kernel(
    "cpu_int8", "int8 products of rounded inputs and packed integer weights", True, available, declines_int8, run
)
