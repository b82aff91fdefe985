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
    if 0 < amount < _SIZES["KiB"] and _is_bare(bare):
        raise UserError(f"memory budget {bare!r} has no unit and would be {amount} bytes; write {bare}% or {bare}MB, "
                        f"or {bare}B for bytes")  # fmt: skip
    return amount


def parse_milliseconds(text: str, whole: float) -> float:
    """An amount in milliseconds; `whole` is 100%. Raises UserError, also for a number up to 100 without a unit, which
    may as well be a percentage."""
    amount = float(_parse(text, _MILLISECONDS, Fraction(whole), "latency budget"))
    if 0 < amount <= 100 and _is_bare(text):
        raise UserError(f"latency budget {text.strip()!r} has no unit; write {text.strip()}% or {text.strip()}ms")
    return amount


def _is_bare(text: str) -> bool:
    """Whether an amount is a number without a unit."""
    return not (text.strip()[-1].isalpha() or text.strip()[-1] == "%")


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
    """A text such as `1.23 ms` or `6740 ms`, of three digits."""
    return f"{_digits(value, 3)} ms"


def show_ratio(ms: float, full: float) -> str:
    """A time as a multiple of full precision's, such as `6.8x` or `0.82x`."""
    ratio = ms / full
    return f"{ratio:.2f}x" if 0.01 <= ratio < 2 else f"{_digits(ratio, 2)}x"


def beside_full(ms: float, full: float | None) -> str:
    """A time beside full precision's: `6740 ms (full precision 991 ms, 6.8x)`.

    full: of the same layers; None or 0 where it is not known.
    """
    beside = f" (full precision {show_milliseconds(full)}, {show_ratio(ms, full)})" if full else ""
    return show_milliseconds(ms) + beside


TIMES = "ms (x full precision)"  # the heading of a column of `time_cell`


def time_cell(ms: float, full: float | None) -> str:
    """A time in a table's column: `6740 (6.8x)`. full: as in `beside_full`."""
    return f"{_digits(ms, 3)} ({show_ratio(ms, full)})" if full else _digits(ms, 3)


def _digits(value: float, count: int) -> str:
    """So many digits, without an exponent up to 10^15."""
    return f"{float(f'{value:.{count}g}'):.15g}"


def amount_text(name: str, value: float, full: Mapping[str, float]) -> str:
    """An amount beside that of the planned layers in full precision, as far as it is known."""
    if name == "bytes":
        of = f" of {show_bytes(full[name])}" if name in full else ""
        return f"{value:,} ({show_bytes(value)}{of})"
    return beside_full(value, full.get(name)) if name == "ms" else f"{value:.4g}"


COSTS = ("bytes", "ms")
SHOW = {"bytes": show_bytes, "ms": show_milliseconds}
SPACINGS = ("log", "linear")  # how the limits of a sweep are spaced
