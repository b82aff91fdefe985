"""Products of float inputs and weights that are dequantized in each call, in blocks of output channels.

The whole float weight never exists: this saves memory, and time only for few rows. It computes in the type of the
input. With eps of that type and K inputs, the error against the float64 reference is at most
(K + 3) * eps * (sum of |x w| + |bias|). Few rows are multiplied by codes, up to 2^7, and then by scales: where the sum
of |x| is above 2^120, as no trained layer's is, their output may be infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from bitplan.plans.formats.storage import Packed, dequantize_rows, row_blocks, shaped, unpack_rows
from bitplan.plans.geometry import Geometry
from bitplan.plans.kernels.base import BLOCK, FLOAT_INPUTS, Held, Kernel, declines_geometry, float_conv, on_cpu

# Up to this number of rows, torch multiplies bfloat16 by int8 codes faster than by dequantized weights: 1.0 to 6.5
# times at 320 to 5120 outputs, 8 and 4 bits; at 64 rows, or in float32, it is slower (benchmarks/few_rows.py).
FEW_ROWS = 16
ALIGNED = 16  # bytes


@torch.no_grad()
def run(x: Tensor, layer: Held) -> Tensor:
    """The output of the layer, in the type of `x`."""
    packed, geometry = layer.packed, layer.geometry
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    product = _few_rows if geometry is None and _are_few(x, packed) else _dequantized
    # `torch.compile` does not write to columns; it fuses
    blocks = [(0, packed.outputs)] if torch.compiler.is_compiling() else row_blocks(packed, BLOCK)
    parts = (
        product(x, packed, (start, stop), None if bias is None else bias[start:stop], geometry)
        for start, stop in blocks
    )
    first = next(parts)
    if first.shape[_channels(geometry)] == packed.outputs:
        return first
    return torch.cat([first, *parts], _channels(geometry))


def _channels(geometry: Geometry | None) -> int:
    """The dimension of an output's channels."""
    return -1 if geometry is None else 1


def _dequantized(
    x: Tensor, packed: Packed, rows: tuple[int, int], bias: Tensor | None, geometry: Geometry | None
) -> Tensor:
    weight = dequantize_rows(packed, *rows).to(x.dtype)
    if geometry is None:
        return linear(x, weight, bias)
    return float_conv(x, shaped(weight, packed.shape), bias, geometry)


def _are_few(x: Tensor, packed: Packed) -> bool:
    """Whether torch has a product for it: few rows, one symmetric scale for each output channel, and a multiple of 64
    inputs, since it reads past the end of others. A graph is made as for many rows: it cannot know where in memory its
    weights will be."""
    whole = packed.format.kind == "int" and not packed.format.affine and packed.format.group is None
    if not whole or packed.inputs % 64 or x.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return False
    return type(x) is Tensor and x.numel() <= FEW_ROWS * packed.inputs


def _few_rows(
    x: Tensor, packed: Packed, rows: tuple[int, int], bias: Tensor | None, geometry: Geometry | None
) -> Tensor:
    """Applies the scale to the sum in float32: the product itself would round it to 16 bits. It crashes where codes
    begin at an address of another multiple than 16, as those of a file mapped into memory may."""
    codes = unpack_rows(packed, *rows).contiguous()
    codes = codes.clone() if codes.data_ptr() % ALIGNED else codes
    sums = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]).contiguous(), codes, x.new_ones(len(codes)))
    scaled = sums.float().mul_(packed.tensors["scale"][slice(*rows)].view(-1)).to(x.dtype)
    out = scaled if bias is None else scaled.add_(bias)
    return out.view(*x.shape[:-1], -1)


CPU_WEIGHT_ONLY = Kernel(
    "cpu_weight_only", "packed weights, dequantized in blocks of output channels", True, FLOAT_INPUTS, on_cpu, run,
    declines_geometry,
)  # fmt: skip
