"""The geometry of a convolution, for layer graphs and for kernels. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """How a convolution walks over its input of one to three dimensions.

    Attributes:
        kernel_size: one size for each dimension, the first dimension first.
        stride: likewise.
        padding: likewise, or `same` or `valid`, or two sizes for each dimension as in `pads`.
        dilation: likewise.
        groups: of channels.
        padding_mode: of torch.nn.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int = 1
    padding_mode: str = "zeros"

    @classmethod
    def plain(cls, dims: int) -> Geometry:
        """A kernel of size one."""
        ones = (1,) * dims
        return cls(ones, ones, (0,) * dims, ones)

    @property
    def pads(self) -> tuple[int, ...]:
        """Two sizes for each dimension, the last one first, in the order of torch.nn.functional.pad: (left, right, top,
        bottom)."""
        dims = len(self.kernel_size)
        if self.padding == "valid":
            return (0, 0) * dims
        if isinstance(self.padding, str):
            pairs = zip(self.dilation[::-1], self.kernel_size[::-1], strict=True)
            both = [dilation * (kernel - 1) for dilation, kernel in pairs]
            return tuple(side for size in both for side in (size // 2, size - size // 2))
        if len(self.padding) == 2 * dims:
            return self.padding
        return tuple(size for one in self.padding[::-1] for size in (one, one))

    @property
    def sizes(self) -> tuple[tuple[int, int, int, int], ...]:
        """(kernel, stride, dilation, both pads together) of each dimension."""
        pads = self.pads
        both = [before + after for before, after in zip(pads[::2], pads[1::2], strict=True)]
        return tuple(zip(self.kernel_size, self.stride, self.dilation, both[::-1], strict=True))

    def output_size(self, *sizes: int) -> tuple[int, ...]:
        """For an input of these sizes, before padding. Raises ValueError for too small an input."""
        if len(sizes) != len(self.kernel_size):
            raise ValueError(f"an input of {len(sizes)} dimensions was given to a convolution over "
                             f"{len(self.kernel_size)}; check the shape (samples, channels, ...)")  # fmt: skip
        found = tuple(
            (size + pads - dilation * (kernel - 1) - 1) // stride + 1
            for size, (kernel, stride, dilation, pads) in zip(sizes, self.sizes, strict=True)
        )
        if min(found) < 1:
            spans = [dilation * (kernel - 1) + 1 for kernel, _, dilation, _ in self.sizes]
            raise ValueError(f"an input of {'x'.join(map(str, sizes))} with its padding is smaller than the "
                             f"{'x'.join(map(str, spans))} that the kernel spans; give a larger input")  # fmt: skip
        return found

    def to_json(self) -> dict[str, Any]:
        """What profiles hold: all but the kernel's size, which the shape of the weight tells."""
        return {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups,
            "padding_mode": self.padding_mode,
        }  # fmt: skip
