"""One Triton kernel for every real product on the GPU: rows of inputs times packed weights.

    out[m, n] = s_m * sum over g of t_ng * (sum over k in g of x[m, k] (q[n, k] - z_ng)) + bias_n

For codes min(s, 1) multiplies the sums before t does, and max(s, 1) the total: nothing overflows that would not in y.

x: int8 codes with row scales s, summed in int32, or floats (s = 1), summed in float32. q, t, z: codes, scales and zero
points, unpacked in registers; fp8 weights are codes of one group without a zero. A convolution is the same product over
the windows of its input, gathered from (N, H, W, C) as they are needed (implicit GEMM): no columns in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from bitplan.plans.formats.packing import PLANES
from bitplan.plans.kernels.gpu.tiles import code_tile, float_of_e4m3, input_tile, position

SEGMENT = 1 << 15  # inputs summed at most in one int32: 2^15 * 255 * 128 < 2^31
INTERPRETED = bool(triton.knobs.runtime.interpret)
SWIZZLE = tl.constexpr(8)  # blocks of rows that go over the outputs together, so that their weights stay in cache


# rows, outputs, warps, stages: what is timed; the last fits every device
BLOCKS = ((128, 256, 8, 3), (128, 128, 8, 3), (128, 128, 4, 4), (64, 128, 4, 4), (64, 64, 4, 4), (32, 64, 4, 4),
          (16, 64, 4, 3))  # fmt: skip


def _configs() -> list[triton.Config]:
    if INTERPRETED:  # it cannot time; small blocks, so that small layers have several
        return [triton.Config({"block_m": 16, "block_n": 16})]
    return [triton.Config({"block_m": m, "block_n": n}, num_warps=w, num_stages=s) for m, n, w, s in BLOCKS]


@triton.jit
def _block(rows, outputs, block_m: tl.constexpr, block_n: tl.constexpr):
    """(block of rows, block of outputs) of this program."""
    high, wide = tl.cdiv(rows, block_m), tl.cdiv(outputs, block_n)
    program = tl.program_id(0)
    first = program // (SWIZZLE * wide) * SWIZZLE
    tall = min(high - first, SWIZZLE)
    return first + program % (SWIZZLE * wide) % tall, program % (SWIZZLE * wide) // tall


@triton.jit
def _weights(
    stored, zeros, low: tl.constexpr, high: tl.constexpr, affine: tl.constexpr, fp8: tl.constexpr,
    compute: tl.constexpr,
):  # fmt: skip
    """Codes as they multiply, (block, outputs) of `compute`: less their zero point, save those of 8 bits into int8."""
    if fp8:
        shifted = float_of_e4m3(stored)
    elif low == 8 and affine and compute != tl.int8:
        shifted = stored.to(tl.int8, bitcast=True).to(tl.int16) + 128 - zeros.to(tl.int16)[None, :]
    elif low == 8:
        shifted = stored.to(tl.int8, bitcast=True)
    elif affine:
        shifted = stored.to(tl.int8) - zeros.to(tl.int8)[None, :]
    else:
        shifted = stored.to(tl.int8) - (1 << (low + high - 1))
    return shifted.to(compute)


@triton.jit
def _floats(sums, totals, zeros, at, late_zero: tl.constexpr):
    """The sums of a group as float32, rounded once. late_zero: zero points are still to be taken off, exactly: both
    terms and their difference are below 2^31."""
    if late_zero:
        sums -= totals[:, None] * (tl.load(zeros + at).to(tl.int32) - 128)[None, :]
    return sums.to(tl.float32)


@triton.jit
def _store(out, total, row, rows, column, outputs):
    """out (rows, outputs)."""
    mask = (row < rows)[:, None] & (column < outputs)[None, :]
    at = row.to(tl.int64)[:, None] * outputs + column[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["bucket"])
def product_kernel(
    x, steps, codes, scale, zero, bias, out, rows, outputs, inputs, row_bytes, positions, sizes, bucket,
    window: tl.constexpr, low: tl.constexpr, high: tl.constexpr, spans: tl.constexpr, even: tl.constexpr,
    group: tl.constexpr, each: tl.constexpr, affine: tl.constexpr, fp8: tl.constexpr, has_bias: tl.constexpr,
    compute: tl.constexpr, block: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr,
):  # fmt: skip
    """See `product`. each: sums are scaled after every step, which then is a group, else after the last."""
    late_zero: tl.constexpr = compute == tl.int8 and affine and low == 8
    first, second = _block(rows, outputs, block_m, block_n)
    row, column = first * block_m + tl.arange(0, block_m), second * block_n + tl.arange(0, block_n)
    held = tl.minimum(column, outputs - 1)  # the last block reads an output again instead of masking
    at = held * (tl.cdiv(inputs, group) if group > 0 else 1)
    weights = codes + (held.to(tl.int64) * row_bytes)[None, :]
    total = tl.zeros((block_m, block_n), dtype=tl.float32)
    sums = tl.zeros((block_m, block_n), dtype=tl.int32 if compute == tl.int8 else tl.float32)
    totals = tl.zeros((block_m,), dtype=tl.int32)
    factor = tl.full((block_m,), 1.0, dtype=tl.float32)
    if compute == tl.int8:
        factor = tl.load(steps + row // positions, mask=row < rows, other=0)
    early = tl.where(factor > 1, 1.0, factor)[:, None]  # NaN is NaN
    for step in range(spans * tl.cdiv(inputs // spans, block)):
        span, index, k, inside = position(step, inputs, spans, block)
        left = input_tile(x, row, rows, k, inside, inputs, sizes, window)
        stored = code_tile(weights, span, index, k, inside, inputs, low, high, spans, even)
        now = at + (step if group > 0 else 0)
        right = _weights(stored, tl.load(zero + now) if affine else 0, low, high, affine, fp8, compute)
        sums = tl.dot(left.to(compute), right, sums, input_precision="ieee", out_dtype=sums.dtype)
        if late_zero:
            totals += tl.sum(left.to(tl.int32), 1)
        if each:
            total += _floats(sums, totals, zero, now, late_zero) * early * tl.load(scale + now)[None, :]
            sums, totals = tl.zeros_like(sums), tl.zeros_like(totals)
    if not each:
        total = _floats(sums, totals, zero, at, late_zero) * early * tl.load(scale + at)[None, :]
    if compute == tl.int8:
        total *= tl.where(factor > 1, factor, 1.0)[:, None]
    if has_bias:
        total += tl.load(bias + held)[None, :]
    _store(out, total, row, rows, column, outputs)


# the types of tensors are part of every key; all of a key must go into JSON
_KEY = ["bucket", "outputs", "inputs", "low", "high", "group", "affine", "fp8", "window"]
_TUNED = triton.autotune(configs=_configs(), key=_KEY, cache_results=True)(product_kernel)


def product(
    inputs: Sequence[Tensor], weight: Sequence[Tensor], bias: Tensor | None, layout: Sequence[int],
    window: Sequence[int], out: Tensor,
) -> None:  # fmt: skip
    """Fills `out` (rows, O) or (N, Ho, Wo, O), contiguous, of any float type.

    inputs: [int8 codes, float32 row or sample scales] or [floats], (rows, K) or (N, H, W, C), contiguous
    weight: the codes, scale and zero (affine only) of a packed weight; bias: (O,) float32
    layout: bits of a code, inputs of a group or 0; window: of a convolution, as `conv_tile` has it; else empty
    """
    if not out.numel():
        return
    x, codes, scale = inputs[0], weight[0].view(torch.uint8), weight[1]
    rows, outputs, k = out.numel() // out.shape[-1], out.shape[-1], x.shape[-1] * prod(window[:2])
    flags = {
        "affine": len(weight) > 2, "fp8": weight[0].dtype == torch.float8_e4m3fn, "has_bias": bias is not None,
        "compute": _compute(x), "window": tuple(window) or None, "group": layout[1],
    }  # fmt: skip
    sizes = (*x.shape[1:3], *out.shape[1:3]) if window else (1, 1, 1, 1)
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        _TUNED[lambda meta: (triton.cdiv(rows, meta["block_m"]) * triton.cdiv(outputs, meta["block_n"]),)](
            x, inputs[-1], codes, scale, weight[-1], scale if bias is None else bias, out, rows, outputs, k,
            codes.shape[1], prod(out.shape[1:-1]), sizes, triton.next_power_of_2(rows), **walk(k, *layout), **flags,
        )  # fmt: skip


def _compute(x: Tensor) -> tl.dtype:
    """The type that products are of. float32 holds those of bfloat16 exactly; the interpreter has no bfloat16 ones."""
    if x.dtype == torch.float16 or (x.dtype == torch.bfloat16 and not INTERPRETED):
        return tl.float16 if x.dtype == torch.float16 else tl.bfloat16
    return tl.int8 if x.dtype == torch.int8 else tl.float32


def walk(inputs: int, bits: int, group: int) -> dict[str, int | bool]:
    """How K is walked (`triton_tiles`): in steps of a group where there are groups, else in long ones that waste little
    behind the end of a span."""
    planes = PLANES[bits]
    spans = 8 // planes[-1]
    even = inputs % spans == 0 and (spans == 1 or not group or inputs // spans % group == 0)
    spans = spans if even else 1
    length = inputs // spans
    block = group or next((size for size in (128, 64) if -(-length // size) * size <= 1.1 * length), 32)
    high = planes[1] if len(planes) > 1 else 0
    each = group > 0 or inputs > SEGMENT
    return {"low": planes[0], "high": high, "spans": spans, "even": even, "each": each, "block": block}
