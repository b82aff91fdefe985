"""Triton kernels that round rows to int8 codes: what `bitplan.plans.inputs.integer.quantize_rows` gives, to the bit.
The step of a row that contains NaN or infinite numbers is NaN.

A row that fits one block is read once, by one program. A longer one (a sample of a convolution) is cut into chunks: a
first launch finds the largest magnitude of each, a second takes the largest of those and rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

LONGEST = 8192  # features of a row that one program holds
_TINY = tl.constexpr(float(torch.finfo(torch.float32).tiny))
_LARGEST = tl.constexpr(float(torch.finfo(torch.float32).max))
_INFINITE = tl.constexpr(float("inf"))
_NAN = tl.constexpr(float("nan"))


# added and taken away it leaves a float32 below 2^22 rounded half to even: no digit behind the point has room
_ROUNDER = tl.constexpr(1.5 * 2**23)


@triton.jit
def _magnitudes(values):
    """Magnitudes, infinite for NaN too, which the largest of several would pass over."""
    sizes = tl.abs(values)
    return tl.where(sizes <= _LARGEST, sizes, _INFINITE)


@triton.jit
def magnitudes_kernel(x, found, features, chunks, block: tl.constexpr):
    """found (rows, chunks) float32: the largest magnitude of each chunk of x (rows, features)."""
    row, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    at = chunk * block + tl.arange(0, block)
    values = tl.load(x + row.to(tl.int64) * features + at, mask=at < features, other=0).to(tl.float32)
    tl.store(found + tl.program_id(0), tl.max(_magnitudes(values)))


@triton.jit
def round_kernel(
    x, found, codes, steps, features, chunks, tokens, tensor, first, largest,
    static: tl.constexpr, parts: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """codes (rows, features) int8 and steps (rows,) float32. static: the range is `tensor`, of every first of `tokens`
    rows `first`, and `steps` is filled already; else the largest of `found`, of which a row has `chunks`, at most
    `parts`, or 0 parts for none."""
    row, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    at = chunk * block + tl.arange(0, block)
    here = row.to(tl.int64) * features + at
    values = tl.load(x + here, mask=at < features, other=0).to(tl.float32)
    if static:
        reach = tl.where(row % tokens == 0, first, tensor)
    elif parts > 0:
        part = tl.arange(0, parts)
        reach = tl.max(tl.load(found + row * chunks + part, mask=part < chunks, other=0))
    else:
        reach = tl.max(_magnitudes(values))
    step = tl.div_rn(reach, largest)
    step = tl.where(step < _TINY, 1.0, step)
    quotient = tl.minimum(tl.maximum(tl.div_rn(values, tl.zeros_like(values) + step), -largest), largest)
    rounded = (quotient + _ROUNDER) - _ROUNDER
    tl.store(codes + here, rounded.to(tl.int8), mask=at < features)
    if static:  # any chunk of a row may be the one that is not finite
        tl.store(steps + row, _NAN, mask=tl.max(_magnitudes(values)) == _INFINITE)
    elif chunk == 0:
        tl.store(steps + row, tl.where(step == _INFINITE, _NAN, step))


def round_rows(x: Tensor, bits: int, ranges: Sequence[float], tokens: int) -> tuple[Tensor, Tensor]:
    """x (rows, features), contiguous, of any float type, to codes (rows, features) int8 and steps (rows, 1) float32.

    ranges: none where every row finds its own; one for all; or two, the second for every first of `tokens` rows
    """
    rows, features = x.shape
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    steps = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    if not x.numel():
        return codes, steps.fill_(1.0)
    largest = float((1 << (bits - 1)) - 1)
    if ranges:
        _fill(steps, ranges, tokens, largest)
    block = min(triton.next_power_of_2(features), LONGEST)
    chunks = triton.cdiv(features, block)
    parts = triton.next_power_of_2(chunks) if chunks > 1 and not ranges else 0
    found = torch.empty(rows, chunks, dtype=torch.float32, device=x.device) if parts else steps
    grid = (rows * chunks,)
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        if parts:
            magnitudes_kernel[grid](x, found, features, chunks, block=block)
        round_kernel[grid](
            x, found, codes, steps, features, chunks, tokens, ranges[0] if ranges else 0.0,
            ranges[-1] if ranges else 0.0, largest, static=bool(ranges), parts=parts, block=block,
        )  # fmt: skip
    return codes, steps


def _fill(steps: Tensor, ranges: Sequence[float], tokens: int, largest: float) -> None:
    """The steps of static ranges, as the kernel computes them."""
    found = torch.tensor(ranges, dtype=torch.float32, device="cpu") / largest
    tensor, *first = torch.where(found < float(_TINY.value), 1.0, found).tolist()
    steps.fill_(tensor)
    if first:
        steps.view(-1, tokens)[:, 0].fill_(first[0])
