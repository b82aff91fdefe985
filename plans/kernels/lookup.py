"""Embeddings: only the packed rows that are looked up are gathered and dequantized, in plain torch.

The result equals that of the reference to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.plans.formats.storage import Packed, dequantize_rows
from bitplan.plans.kernels.base import FLOAT_INPUTS, Held, Kernel, on_cpu
from bitplan.plans.kernels.gpu.operators import on_cuda


def available(device: torch.device) -> str | None:
    return on_cuda(device) if device.type == "cuda" else on_cpu(device)


@torch.no_grad()
def run(x: Tensor, layer: Held) -> Tensor:
    """(..., K) float32 of the row numbers (...)."""
    packed, rows = layer.packed, x.reshape(-1)
    some = {name: _selected(tensor, rows) for name, tensor in packed.tensors.items()}
    count = rows.shape[0]  # torch.export takes len() for a constant
    gathered = Packed(some, (count, *packed.shape[1:]), packed.format)
    return dequantize_rows(gathered, 0, count).view(*x.shape, packed.inputs)


def _selected(tensor: Tensor, rows: Tensor) -> Tensor:
    """Float8 is not gathered by all versions of torch, its bytes are; `[rows]` would take negative numbers."""
    if tensor.dtype.itemsize > 1:
        return tensor.index_select(0, rows)
    return tensor.view(torch.uint8).index_select(0, rows).view(tensor.dtype)


LOOKUP = Kernel(
    "lookup", "packed rows of embeddings, dequantized as they are looked up", True, FLOAT_INPUTS, available, run,
    kinds=("embedding",),
)  # fmt: skip
