"""What every weight format gives: a packed weight, and the four functions of its line in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from bitplan.plans.scheme import WeightFormat

Parts = tuple[Tensor, Tensor | None, Tensor | None]


class FormatError(ValueError):
    """A weight that a format cannot store, or a packed weight that has no such part."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A stored weight. With O output channels (rows of an embedding), K inputs each (positions x channels, in that
    order, so that groups are of neighbouring channels and kernels read them in a run) and G groups:

    codes: what the format says: (O, bytes) uint8, (O, K) float8_e4m3fn, or (O, K) as it came for `keep`
    scale: (O, G) float32, None for `keep`; zero: (O, G) uint8, the code of 0 counted from the lowest one, or None
    shape: of the weight before; format: how it is stored
    """

    codes: Tensor
    scale: Tensor | None
    zero: Tensor | None
    shape: tuple[int, ...]
    format: WeightFormat

    @property
    def outputs(self) -> int:
        return self.shape[0]

    @property
    def inputs(self) -> int:
        return prod(self.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that its tensors hold."""
        return sum(tensor.nbytes for tensor in (self.codes, self.scale, self.zero) if tensor is not None)


@dataclass(frozen=True, eq=False)
class Grid:
    """What a weight is rounded to: a packed weight without its codes, a hundredth of its size. As in `Packed`."""

    scale: Tensor | None
    zero: Tensor | None
    format: WeightFormat


@dataclass(frozen=True)
class Format:
    """One kind of weight format. O and K as in `Packed`.

    quantize: ((O, K) finite weight of any float type, format) -> codes, scale, zero
    dequantize_rows: (packed, start, stop) -> (stop - start, K) float32
    grid: ((O, K) weight, format) -> scale, zero, those of `quantize`
    on_grid: ((O, K) weight, grid) -> (O, K) float32, what dequantizing gives, to the bit
    unpack_rows: (packed, start, stop) -> (stop - start, K) int8 codes, or None where codes are no integers
    stored_bytes: (O, K, format, bytes per element of a kept weight) -> bytes
    layout: (O, K, format) -> codes, scale, zero as tensors without data, on the meta device; None where a weight is
    stored as it came
    """

    name: str
    says: str
    quantize: Callable[[Tensor, WeightFormat], Parts]
    dequantize_rows: Callable[[Packed, int, int], Tensor]
    grid: Callable[[Tensor, WeightFormat], tuple[Tensor | None, Tensor | None]]
    on_grid: Callable[[Tensor, Grid], Tensor]
    unpack_rows: Callable[[Packed, int, int], Tensor] | None
    stored_bytes: Callable[[int, int, WeightFormat, int], int]
    layout: Callable[[int, int, WeightFormat], Parts] | None


def flattened(weight: Tensor) -> Tensor:
    """(O, C, sizes of the kernel...) or (O, K) to (O, K): a row for each output channel, its channels innermost."""
    return weight.movedim(1, -1).reshape(len(weight), -1)


def shaped(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The reverse of `flattened`, for all rows of a weight of `shape` or some."""
    return rows.view(len(rows), *shape[2:], shape[1]).movedim(-1, 1).contiguous()


def row_blocks(packed: Packed, elements: int) -> Iterator[tuple[int, int]]:
    """Runs (start, stop) of output channels that have about `elements` weights each, at least one channel."""
    step = max(1, elements // packed.inputs)
    for start in range(0, packed.outputs, step):
        yield start, min(start + step, packed.outputs)
