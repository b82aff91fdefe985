"""The ways to multiply int8 codes on a CPU.

All give the same numbers to the bit: the sums of products are exact, and each is rounded once to float32. They differ
in speed alone. `torch._int_mm` is fast where the processor has VNNI or AMX; elsewhere torch runs a plain loop, which
takes 13 to 450 times as long as a float product. Float products of codes are exact as long as no sum exceeds 2^24,
which `DEPTH` products of int8 codes cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

DEPTH = 1 << 10  # products in one float32 sum at most: 2^10 * 2^7 * 2^7 = 2^24


@dataclass(frozen=True)
class ProductPath:
    """One way to multiply int8 codes.

    Attributes:
        name: as reports show it.
        operand: converts int8 codes into what `product` takes, once for all products that they take part in.
        product: multiplies operands (M, K) and (K, N), K at most 2^15, to (M, N) float32 sums, each rounded once.
        direct: whether convolutions may be computed without columns, by `bitplan.plans.kernels.cpu.direct`.
    """

    name: str
    operand: Callable[[Tensor], Tensor]
    product: Callable[[Tensor, Tensor], Tensor]
    direct: bool


def _same(codes: Tensor) -> Tensor:
    return codes


def _int_mm(left: Tensor, right: Tensor) -> Tensor:
    """torch misreads some strides of a column times a row, so that case is a float product."""
    return torch._int_mm(left, right).float() if left.shape[1] > 1 else left.float() * right.float()


def _float_blocks(left: Tensor, right: Tensor) -> Tensor:
    blocks = blocks_of(left.shape[1], DEPTH)
    return exact_total(_float_product(left[:, start:stop], right[start:stop]) for start, stop in blocks)


def _float_product(left: Tensor, right: Tensor) -> Tensor:
    """`out=` keeps autocast from computing in 16 bits."""
    return torch.mm(left, right, out=left.new_empty(left.shape[0], right.shape[1]))


def blocks_of(size: int, most: int) -> list[tuple[int, int]]:
    """(start, stop) of the fewest runs of at most `most`, about equally long."""
    step = -(-size // -(-size // most))
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def exact_total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of float32 tensors of integers up to 2^24, rounded once. Overwrites the first tensor.

    float32 rounds the sum of two tensors once; more are summed in float64.
    """
    total, *others = parts
    if len(others) < 2:
        return total.add_(others[0]) if others else total
    wide = total.double()
    for part in others:
        wide.add_(part)
    return wide.float()


INT_MM = ProductPath("int_mm", _same, _int_mm, False)
FLOAT_BLOCKS = ProductPath("float_blocks", Tensor.float, _float_blocks, True)
PATHS: dict[str, ProductPath] = {path.name: path for path in (INT_MM, FLOAT_BLOCKS)}
