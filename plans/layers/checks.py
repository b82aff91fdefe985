"""Checks what a packed layer was loaded from a file with."""

from __future__ import annotations

from typing import Any

import torch

from bitplan.plans.formats.storage import FormatError, dequantize

_LARGE = torch.finfo(torch.float32).max / 2**10  # codes times a smaller scale are finite
_ROWS = 4096


def check_finite(layer: Any) -> None:
    """Raises FormatError for stored numbers that no weight is saved as: NaN, infinite ones, and scales below 0.

    layer: of `bitplan.plans.layers.modules.PACKED`. Tensors on the meta device, which hold no numbers, pass.
    """
    for name in (*layer.parts, *layer.fits):
        tensor = layer._parameters[name].detach()
        if tensor.is_meta:
            return
        if tensor.dtype.is_floating_point and not all(map(_is_finite, tensor.split(_ROWS))):
            raise FormatError(f"its {name} is NaN or infinite in places")
        if name == "scale" and bool((tensor < 0).any()):
            raise FormatError(f"its {name} is below 0 in places")
        if name == "scale" and bool((tensor > _LARGE).any()) and not bool(dequantize(layer.packed).isfinite().all()):
            raise FormatError(f"its {name} is so large that weights are infinite")


def _is_finite(part: torch.Tensor) -> bool:
    """Whether all numbers are finite; torch does not tell of numbers of one byte."""
    return bool((part.to(torch.float16) if part.itemsize == 1 else part).isfinite().all())
