"""Measures the memory of a run, and how many conditions one run may therefore take.

The measure is the sum of the tensors that exist at once, not the size of the process: it is the same in every run, on
every machine and in every worker, and so are the batches, on which the rounding of a loss depends.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOM = 2 * 2**30  # bytes of the tensors that one run may make at once, besides the weights


class LiveTensors(TorchDispatchMode):
    """Within the `with`, measures the tensors that operations make.

    Attributes:
        most: the largest number of bytes that existed at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._sum = 0
        self._blocks: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {block._cdata for block in _storages((args, kwargs))}
        for block in _storages(out):
            if block._cdata not in known and block._cdata not in self._blocks:
                self._blocks[block._cdata] = StorageWeakRef(block), block.nbytes()
                self._sum += block.nbytes()
        if self._sum > self.most:
            self._drop_freed()
            self.most = max(self.most, self._sum)
        return out

    def _drop_freed(self) -> None:
        """A freed block is found here, and its address is reserved until then."""
        self._blocks = {key: each for key, each in self._blocks.items() if not each[0].expired()}
        self._sum = sum(size for _, size in self._blocks.values())


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    leaves = tree_leaves(tree)
    return [x.untyped_storage() for x in leaves if isinstance(x, torch.Tensor) and x.layout == torch.strided]


def batch_of(held: int, room: int | None = None) -> int:
    """The number of conditions that one run may take: a power of two, for which the run holds at most `room` bytes.

    held: bytes that the run of one condition holds. room: `ROOM` by default.
    """
    most = max(1, (ROOM if room is None else room) // max(held, 1))
    return 1 << (min(most, 1 << 20).bit_length() - 1)
