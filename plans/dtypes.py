"""Float types that models are loaded in, by their names in torch. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

FLOAT32 = "float32"
FLOATS = (FLOAT32, "bfloat16", "float16")


def itemsize_of(dtype: str) -> int:
    """Bytes of a number of that float type."""
    return 4 if dtype == FLOAT32 else 2


def float_type(modules: Iterable[Any]) -> str:
    """The float type that decides how well modules compute: of 16 bits if one of their parameters has such a type."""
    found = {str(parameter.dtype).rpartition(".")[2] for module in modules for parameter in module.parameters()}
    return next((name for name in reversed(FLOATS) if name in found), FLOAT32)
