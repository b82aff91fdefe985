"""What every weight format gives: a packed weight, and the functions of its line in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bitplan.plans.formats import WeightFormat

Parts = Mapping[str, Tensor]  # name -> tensor, in the order in which they are stored


class FormatError(ValueError):
    """A weight that a format cannot store, or a packed weight that has no such part."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A stored weight, with O output channels (rows of an embedding) and K inputs each: positions x channels, in that
    order, so that groups are of neighbouring channels and kernels read them in a run.

    Attributes:
        tensors: what the format stores, by name. Those built in name, with G groups: `codes` (O, bytes) uint8,
            (O, K) float8_e4m3fn, or (O, K) as it came for `keep`; `scale` (O, G) float32, not for `keep`; `zero` (O, G)
            uint8, the code of 0 counted from the lowest one, of affine weights only.
        shape: of the weight before.
        format: how it is stored.
    """

    tensors: Parts
    shape: tuple[int, ...]
    format: WeightFormat

    @property
    def outputs(self) -> int:
        return self.shape[0]

    @property
    def inputs(self) -> int:
        return prod(self.shape[1:])

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    @property
    def nbytes(self) -> int:
        """Bytes that its tensors hold."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True, eq=False)
class Grid:
    """What a weight is rounded to: a packed weight without its codes, a hundredth of its size.

    Attributes:
        tensors: as in `Packed`, without codes.
        format: how the weight is stored.
    """

    tensors: Parts
    format: WeightFormat


@dataclass(frozen=True)
class Format:
    """The functions of a line in `FORMATS`. O and K as in `Packed`.

    Attributes:
        quantize: ((O, K) finite weight of any float type, format) -> name -> stored tensor.
        dequantize_rows: (packed, start, stop) -> (stop - start, K) float32.
        grid: ((O, K) weight, format) -> name -> tensor, those of `quantize` that `on_grid` needs.
        on_grid: ((O, K) weight, grid) -> (O, K) float32, what dequantizing gives, to the bit.
        stored_bytes: (O, K, format, bytes per element of a kept weight) -> bytes.
        layout: (O, K, format) -> name -> tensor on the meta device, as `quantize` gives them; None where a weight is
            stored as it came.
        unpack_rows: (packed, start, stop) -> (stop - start, K) int8 codes; None where codes are not integers.
    """

    quantize: Callable[[Tensor, WeightFormat], Parts]
    dequantize_rows: Callable[[Packed, int, int], Tensor]
    grid: Callable[[Tensor, WeightFormat], Parts]
    on_grid: Callable[[Tensor, Grid], Tensor]
    stored_bytes: Callable[[int, int, WeightFormat, int], int]
    layout: Callable[[int, int, WeightFormat], Parts] | None = None
    unpack_rows: Callable[[Packed, int, int], Tensor] | None = None


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
