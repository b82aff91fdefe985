"""Reads and writes amounts such as `35%`, `900MiB`, `1.2 GB` and `80 ms`."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from bitplan.planner.errors import UserError

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_BYTES = {unit: Fraction(size) for unit, size in _SIZES.items()}
_MILLISECONDS = {"": Fraction(1), "us": Fraction(1, 1000), "ms": Fraction(1), "s": Fraction(1000)}
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*")


def parse_number(text: str, what: str) -> float | None:
    """The number that a text states, also NaN and infinities; None for another text. what: how errors call it.

    Raises UserError for a number so near 0 that a float rounds it or makes it 0.
    """
    try:
        number = float(text)
    except ValueError:
        return None
    digits = re.search("[1-9]", text.lower().partition("e")[0])
    if digits and abs(number) < sys.float_info.min:
        raise UserError(f"{what} {text.strip()} is too small for a float; give 0, or at least {sys.float_info.min:.3g}")
    return number


def _parse(text: str, units: Mapping[str, Fraction], whole: Fraction, what: str) -> Fraction:
    """Return the exact amount, because a float holds integers up to 2^53 only."""
    sizes = {unit.lower(): size for unit, size in units.items()} | {"%": whole / 100}
    match = _AMOUNT.fullmatch(text)
    if not match or match.group(2).lower() not in sizes:
        known = ", ".join(["%", *filter(None, units)])
        raise UserError(f"{what} {text!r} is not an amount; write a number with one of: {known}")
    number, size = match.group(1), sizes[match.group(2).lower()]
    if not math.isfinite(float(number) * float(size)):
        raise UserError(f"{what} {text!r} is not a finite amount; leave it out for no bound")
    if not float(number):
        return Fraction(0)  # also of 1e-999999999, whose fraction is too long to compute
    return Fraction(Decimal(number)) * size


def parse_bytes(text: str, whole: int) -> int:
    """An amount in bytes, rounded down; `whole` is 100%. Raises UserError, also for a number from 1 to 1023 without a
    unit: no model is that small, so a unit is missing."""
    amount = math.floor(_parse(text, _BYTES, Fraction(whole), "memory budget"))
    bare = text.strip()
    if 0 < amount < _SIZES["KiB"] and not bare[-1].isalpha() and bare[-1] != "%":
        raise UserError(f"memory budget {bare!r} has no unit and would be {amount} bytes; write {bare}% or {bare}MB, "
                        f"or {bare}B for bytes")  # fmt: skip
    return amount


def parse_milliseconds(text: str, whole: float) -> float:
    """An amount in milliseconds; `whole` is 100%. Raises UserError."""
    return float(_parse(text, _MILLISECONDS, Fraction(whole), "latency budget"))


def bits_to_bytes(bits: float, weights: int) -> int:
    """The bytes of `weights` weights of `bits` bits each, rounded down. Raises UserError."""
    if not (bits > 0 and math.isfinite(bits * weights)):
        raise UserError(f"--bits {bits:g} is not a mean of bits a weight; give a number above 0, such as 4.5")
    return math.floor(Fraction(Decimal(repr(float(bits)))) * weights / 8)


def show_bytes(count: float) -> str:
    """A text such as `12.3 MiB`, in the largest unit that gives a number of at least 1."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"


def show_milliseconds(value: float) -> str:
    """A text such as `1.23 ms`."""
    return f"{value:.3g} ms"


COSTS = ("bytes", "ms")
SHOW = {"bytes": show_bytes, "ms": show_milliseconds}
SPACINGS = ("log", "linear")  # how the limits of a sweep are spaced
