"""Amounts as people write them: `35%`, `900MiB`, `1.2 GB`, `80 ms`."""

from __future__ import annotations

import re

from planner.errors import UserError

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_MILLISECONDS = {"": 1.0, "us": 1e-3, "ms": 1.0, "s": 1e3}
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*")


def _parse(text: str, units: dict[str, float], whole: float, what: str) -> float:
    match = _AMOUNT.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if not match or (unit != "%" and unit not in units):
        known = ", ".join(["%", *filter(None, units)])
        raise UserError(f"{what} {text!r} is no amount; write a number with one of: {known}")
    value = float(match.group(1))
    return whole * value / 100 if unit == "%" else value * units[unit]


def parse_bytes(text: str, whole: int) -> int:
    """Bytes, rounded down; per cent are of `whole`. Raises UserError."""
    return int(_parse(text, _BYTES, whole, "memory budget"))


def parse_milliseconds(text: str, whole: float) -> float:
    """Milliseconds; per cent are of `whole`. Raises UserError."""
    return _parse(text, _MILLISECONDS, whole, "latency budget")


def show_bytes(count: float) -> str:
    """`12.3 MiB`, in the largest unit that leaves a number of at least 1."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"


def show_milliseconds(value: float) -> str:
    return f"{value:.3g} ms"
