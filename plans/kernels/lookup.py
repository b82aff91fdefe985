"""Embeddings: the packed rows that are asked for, and no others, are gathered and dequantized, in plain torch.

What comes out is the reference's, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.plans.formats import Packed, dequantize_rows
from bitplan.plans.inputs.integer import ActivationScales
from bitplan.plans.kernels.base import Geometry, Kernel, declines_float, on_cpu
from bitplan.plans.kernels.gpu.operators import on_cuda
from bitplan.plans.scheme import Scheme


def available(device: torch.device) -> str | None:
    return on_cuda(device) if device.type == "cuda" else on_cpu(device)


@torch.no_grad()
def run(
    x: Tensor, packed: Packed, scheme: Scheme, bias: Tensor | None, scales: ActivationScales | None,
    geometry: Geometry | None,
) -> Tensor:  # fmt: skip
    """(..., K) float32 of the row numbers (...)."""
    asked = x.reshape(-1)
    # float8 is not gathered by all versions of torch; and `[asked]` would take negative numbers
    codes = packed.codes.view(torch.uint8).index_select(0, asked).view(packed.codes.dtype)
    scale, zero = (None if part is None else part.index_select(0, asked) for part in (packed.scale, packed.zero))
    some = Packed(codes, scale, zero, (len(asked), *packed.shape[1:]), packed.format)
    return dequantize_rows(some, 0, len(asked)).view(*x.shape, packed.inputs)


LOOKUP = Kernel(
    "lookup", "packed rows of embeddings, dequantized as they are asked for", True, available, declines_float, run,
    ("embedding",),
)  # fmt: skip
