"""Parts of the Triton kernels: which inputs a step of a product reads, and its tiles of inputs and of weights.

A step covers `block` of the K inputs. Packed codes lie in planes whose byte i holds the codes i, i + Q, i + 2Q ...
(`bitplan.plans.formats.packing`), so K is walked in `spans` of Q = K / spans inputs, one shift each: within a span
bytes follow
each other as inputs do, and loads are wide. Where K does not divide so (`even` false) there is one span, and every code
finds its own byte.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def position(step, inputs, spans: tl.constexpr, block: tl.constexpr):
    """(span, index in it (block,), input (block,), which of these exist (block,)) of a step."""
    length = inputs // spans
    steps = tl.cdiv(length, block)
    span = step // steps
    index = (step % steps) * block + tl.arange(0, block)
    return span, index, span * length + index, index < length


@triton.jit
def input_tile(x, row, rows, k, inside, inputs, sizes, window: tl.constexpr):
    """(rows of the block, block) of the input of a linear layer (`window` None) or of a convolution."""
    if window is None:
        return linear_tile(x, row, rows, k, inside, inputs)
    else:  # noqa: RET505 (what follows a return is compiled too)
        return conv_tile(x, row, rows, k, inside, inputs, sizes, window)


@triton.jit
def linear_tile(x, row, rows, k, inside, inputs):
    """(rows of the block, block) of x (rows, inputs)."""
    at = x + row.to(tl.int64)[:, None] * inputs + k[None, :]
    return tl.load(at, mask=(row < rows)[:, None] & inside[None, :], other=0)


@triton.jit
def conv_tile(x, row, rows, k, inside, inputs, sizes, window: tl.constexpr):
    """The same for x (N, H, W, C): a row is a position of the output, an input a (kernel row, kernel column, channel),
    so that neighbouring inputs are neighbours in memory.

    sizes: (H, W, Ho, Wo); window: kernel height and width, strides, dilations, pads above and on the left.
    """
    height, width, out_height, out_width = sizes[0], sizes[1], sizes[2], sizes[3]
    channels = inputs // (window[0] * window[1])
    sample, place = row // (out_height * out_width), row % (out_height * out_width)
    top = (place // out_width) * window[2] - window[6]
    left = (place % out_width) * window[3] - window[7]
    tap = k // channels
    down, right = tap // window[1] * window[4], tap % window[1] * window[5]
    y, z = top[:, None] + down[None, :], left[:, None] + right[None, :]
    mask = (row < rows)[:, None] & inside[None, :] & (y >= 0) & (y < height) & (z >= 0) & (z < width)
    start = ((sample.to(tl.int64) * height + top) * width + left) * channels
    within = (down * width + right) * channels + k % channels
    return tl.load(x + start[:, None] + within[None, :], mask=mask, other=0)


@triton.jit
def plane_tile(
    codes, start, span, index, k, inside, inputs, plane: tl.constexpr, spans: tl.constexpr, even: tl.constexpr
):
    """(block, outputs of the block) uint8: the bits of one plane. codes: (1, outputs) pointers to the rows; start: its
    first byte in a row."""
    codes_a_byte: tl.constexpr = 8 // plane
    mask: tl.constexpr = (1 << plane) - 1
    if even:
        share: tl.constexpr = spans // codes_a_byte
        byte, shift = (span % share) * (inputs // spans) + index, span // share * plane
    else:
        run = tl.cdiv(inputs, codes_a_byte)
        byte, shift = k % run, (k // run * plane)[:, None]
    raw = tl.load(codes + (start + byte)[:, None], mask=inside[:, None], other=0)
    return (raw >> shift.to(tl.uint8)) & mask


@triton.jit
def code_tile(
    codes, span, index, k, inside, inputs, low: tl.constexpr, high: tl.constexpr, spans: tl.constexpr,
    even: tl.constexpr,
):  # fmt: skip
    """(block, outputs) uint8: codes counted from the lowest one; those of 8 bits as they are stored. low, high: bits
    of the planes, high 0 where there is one."""
    values = plane_tile(codes, 0, span, index, k, inside, inputs, low, spans, even)
    if high > 0:
        upper = plane_tile(codes, tl.cdiv(inputs * low, 8), span, index, k, inside, inputs, high, spans, even)
        values = values | (upper << low)
    return values


@triton.jit
def float_of_e4m3(codes):
    """e4m3 codes as float16, exactly, on devices without e4m3 too: their bits read as float16 are 2^-8 of their value,
    subnormals included. NaN, which no weight holds, would be 480."""
    bits = ((codes & 0x80).to(tl.uint16) << 8) | ((codes & 0x7F).to(tl.uint16) << 7)
    return bits.to(tl.float16, bitcast=True) * 256.0
