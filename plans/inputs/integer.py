"""A layer's input as integers: codes and one scale for each row.

A row is what shares a scale: for a linear layer a token (one vector of features); for a convolution one SAMPLE of the
batch, since its patches overlap and no two patches could have different scales. Codes cannot hold NaN or infinity: a
row that contains either, or a float64 number beyond float32, has the scale NaN, so that everything computed from it is
NaN. Shape letters: M rows, K features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import threshold

from bitplan.plans.inputs import InputFormat
from bitplan.plans.inputs.base import ActivationError, ActivationScales, Inputs
from bitplan.plans.transforms.first_token import row_ranges

BLOCK = 1 << 18  # elements rounded at once: larger float32 temporaries cost more in page faults than in arithmetic
_SUBNORMAL = 2**-126 - 2**-149  # the largest: up to it a step has lost its digits


def largest_code(fmt: InputFormat) -> int:
    """The codes are -largest .. largest."""
    return (1 << (fmt.bits - 1)) - 1


@torch.no_grad()
def quantize_rows(x: Tensor, fmt: InputFormat, scales: ActivationScales | None = None) -> tuple[Tensor, Tensor]:
    """`x` (..., K) of any float type to codes (M, K) int8 and row scales (M, 1) float32, x ~ codes * scale.

    Symmetric, rounded half to even in float32, clamped. Formats of 6 and 4 bits have fewer levels, carried in int8. The
    scale of a row with NaN or infinite numbers is NaN.
    Raises ActivationError where a static format has no calibrated range, or the input no first token.
    """
    if fmt.kind != "int":
        raise ActivationError(f"`{fmt}` is not an integer format; use the input as it is")
    rows = x.reshape(-1, x.shape[-1])
    if fmt.static:
        ranges = _nan_unless_finite(_static_ranges(x, fmt, scales).to(x.device), rows)
    else:
        ranges = _largest_magnitudes(rows)
    # by a tensor: dividing by a number, CUDA multiplies by its reciprocal
    scale = (ranges / ranges.new_full((1,), largest_code(fmt))).view(-1, 1)
    scale = threshold(scale, _SUBNORMAL, 1.0).fmod_(math.inf)  # NaN stays, and the remainder of infinity is NaN
    # a dynamic range holds the largest magnitude, so that there is nothing to clamp
    return _round(rows, scale, largest_code(fmt) if fmt.static else None), scale


def fake_quantize(x: Tensor, fmt: InputFormat, scales: ActivationScales | None = None) -> Tensor:
    """`x` (..., K) rounded to its codes and back, in the type of `x`."""
    codes, scale = quantize_rows(x, fmt, scales)
    return (codes * scale).view(x.shape).to(x.dtype)


def _static_ranges(x: Tensor, fmt: InputFormat, scales: ActivationScales | None) -> Tensor:
    if scales is None:
        raise ActivationError(f"`{fmt}` has no calibrated range for this layer; calibrate it, or use a dynamic format")
    leading = tuple(x.shape[:-1])
    if scales.first is None:
        return torch.full((x.numel() // x.shape[-1],), scales.tensor, dtype=torch.float32, device=x.device)
    try:
        return row_ranges(leading, scales.tensor, scales.first)
    except ValueError as error:
        raise ActivationError(f"{error}; give this layer a scheme without it") from error


def _nan_unless_finite(ranges: Tensor, rows: Tensor) -> Tensor:
    """`ranges`, but NaN for each row that contains NaN or infinite numbers."""
    eager = type(rows) is Tensor and rows.device.type == "cpu" and not torch.compiler.is_compiling()
    if eager and math.isfinite(rows.sum(dtype=torch.float32).item()):  # half the time of the magnitudes
        return ranges
    return ranges + _largest_magnitudes(rows) * 0


def _largest_magnitudes(rows: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # what comes before is computed again for each of two reductions
        return rows.abs().amax(1).float()
    return torch.maximum(rows.amax(1), -rows.amin(1)).float()


def _round(x: Tensor, scale: Tensor, largest: int | None) -> Tensor:
    """int8 codes, within -largest .. largest if that is given; in blocks, but under `torch.compile`, which fuses."""
    if torch.compiler.is_compiling():
        return _steps(x, scale, largest).to(torch.int8)
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    rows, features = x.shape
    high, wide = max(1, BLOCK // features), min(features, BLOCK)
    for top in range(0, rows, high):
        for left in range(0, features, wide):
            block = (slice(top, top + high), slice(left, left + wide))
            codes[block] = _steps(x[block], scale[block[0]], largest)
    return codes


def _steps(x: Tensor, scale: Tensor, largest: int | None) -> Tensor:
    steps = torch.div(x.float(), scale).round_()
    return steps if largest is None else steps.clamp_(-largest, largest)


INTEGER = Inputs(fake_quantize)
