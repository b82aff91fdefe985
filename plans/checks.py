"""Words for schemas of data from files: a `Check` is called with a value, and raises `Wrong` where it does not fit.

A schema is one expression of these words, such as `record({"name": name()}, {"ms": optional(number(0))})`. Imports no
torch.
"""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from bitplan.plans.names import nearest_or_all

Check = Callable[[Any], None]
LARGEST = sys.float_info.max
WHOLE = 2**53  # up to which floats hold all integers
LINE, PROSE = 1000, 20_000  # characters of a name, and of a text such as a prompt
MANY = 10_000_000  # entries of a list or a mapping
DEEPEST = 32  # levels of data without a schema of its own
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class Wrong(ValueError):  # noqa: N818 - what a value is
    """A value that does not fit; `place` is the path of keys to it."""

    def __init__(self, problem: str, place: tuple[object, ...] = ()) -> None:
        super().__init__(problem)
        self.problem, self.place = problem, place

    def under(self, key: object) -> Wrong:
        """The same below one more key."""
        return Wrong(self.problem, (key, *self.place))

    def __str__(self) -> str:
        """`place: problem`, one line without characters that a terminal obeys."""
        place = ".".join(part if isinstance(part, str) else str(part) for part in self.place)
        return f"{printable(place[:160]) or 'the top'}: {self.problem}"


def shown(value: object) -> str:
    """A value from a file, short enough for an error and in printable characters."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python refuses to write such a number
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return printable(text if len(text) <= 100 else f"{text[:97]}...")


def number(low: float = -LARGEST, high: float = LARGEST) -> Check:
    """A number in this range; never NaN or infinity unless the range says so."""

    def check(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Wrong(f"{shown(value)} is not a number")
        if not low <= value <= high:
            raise Wrong(f"{shown(value)} is {_outside(low, high)}")

    return check


def whole(low: int = 0, high: int = WHOLE) -> Check:
    """An integer in this range."""

    def check(value: Any) -> None:
        if type(value) is not int:
            raise Wrong(f"{shown(value)} is not an integer")
        if not low <= value <= high:
            raise Wrong(f"{shown(value)} is not from {low} to {high}")

    return check


def flag(value: Any) -> None:
    """True or false."""
    if type(value) is not bool:
        raise Wrong(f"{shown(value)} is not true or false")


def text(most: int = PROSE, least: int = 0) -> Check:
    """Unicode text of at most so many characters."""

    def check(value: Any) -> None:
        if not isinstance(value, str):
            raise Wrong(f"{shown(value)} is not text")
        if not least <= len(value) <= most:
            raise Wrong(f"{shown(value)} has {len(value)} characters, and {least} to {most} are allowed")
        if not value.isascii() and _SURROGATE.search(value):
            raise Wrong(f"{shown(value)} is not Unicode text")

    return check


def name(most: int = LINE) -> Check:
    """Text of printable characters, at least one."""
    as_text = text(most, 1)

    def check(value: Any) -> None:
        as_text(value)
        if not value.isprintable():
            raise Wrong(f"{shown(value)} holds control characters")

    return check


def matching(pattern: str, what: str) -> Check:
    """Text that the pattern matches whole. what: how errors call it."""
    expression, as_text = re.compile(pattern), text(LINE)

    def check(value: Any) -> None:
        as_text(value)
        if not expression.fullmatch(value):
            raise Wrong(f"{shown(value)} is not {what}")

    return check


VARIANT = matching(r"\w+", "a variant of weights, such as fp16")
DIGEST = matching("[0-9a-f]{64}", "a sha256 of 64 hexadecimal digits")


def one_of(values: Collection[Any]) -> Check:
    """One of these texts or numbers."""
    known = tuple(values)

    def check(value: Any) -> None:
        if not isinstance(value, (str, int)) or isinstance(value, bool) or value not in known:
            raise Wrong(f"{shown(value)} is not one of {', '.join(map(str, known))}")

    return check


def list_of(item: Check, least: int = 0, most: int = MANY, distinct: bool = False) -> Check:
    """A list of so many such items."""

    def check(value: Any) -> None:
        if not isinstance(value, (list, tuple)):
            raise Wrong(f"{shown(value)} is not a list")
        if not least <= len(value) <= most:
            raise Wrong(f"it has {len(value)} entries, and {least} to {most} are allowed")
        place = 0
        try:
            for place, each in enumerate(value):  # noqa: B007 - for the error
                item(each)
        except Wrong as wrong:
            raise wrong.under(place) from None
        if distinct and len(set(value)) < len(value):
            raise Wrong(f"{shown(next(each for each in value if value.count(each) > 1))} is listed twice")

    return check


def mapping_of(value: Check, key: Check | None = None, least: int = 0) -> Check:
    """A mapping of texts to such values."""
    as_key = key or text(LINE)

    def check(data: Any) -> None:
        if not isinstance(data, dict):
            raise Wrong(f"{shown(data)} is not a mapping")
        if not least <= len(data) <= MANY:
            raise Wrong(f"it has {len(data)} entries, and at least {least} are needed")
        for own, each in data.items():
            _check_key(own, as_key)
            try:
                value(each)
            except Wrong as wrong:
                raise wrong.under(own) from None

    return check


def record(
    required: Mapping[str, Check], others: Mapping[str, Check] | None = None, rest: Check | None = None
) -> Check:
    """A mapping with these keys. others: keys that may be absent; rest: of all other keys; None refuses them."""
    known = dict(required) | dict(others or {})

    def check(data: Any) -> None:
        if not isinstance(data, dict):
            raise Wrong(f"{shown(data)} is not a mapping")
        for key, value in data.items():
            own = known.get(key) if isinstance(key, str) else None
            if own is None:
                _check_key(key, text(LINE))
                if rest is None:
                    raise Wrong(f"unknown key {shown(key)}{nearest_or_all(key[:LINE], list(known))}")
                own = rest
            try:
                own(value)
            except Wrong as wrong:
                raise wrong.under(key) from None
        if missing := [key for key in required if key not in data]:
            raise Wrong(f"{missing[0]!r} is missing")

    return check


def optional(check: Check) -> Check:
    """The same, or null."""
    return lambda value: None if value is None else check(value)


def either(first: Check, second: Check, what: str) -> Check:
    """A value that fits one of two checks. what: how errors call both."""

    def check(value: Any) -> None:
        try:
            first(value)
        except Wrong:
            try:
                second(value)
            except Wrong:
                raise Wrong(f"{shown(value)} is not {what}") from None

    return check


def plain(deepest: int = DEEPEST, most: int = PROSE) -> Check:
    """Any data of mappings, lists, texts, numbers, true, false and null, nested so deep at most."""
    leaf = {str: text(most), int: number(), float: number(), bool: flag, type(None): lambda _: None}

    def check(value: Any) -> None:
        known = leaf.get(type(value))
        if known:
            return known(value)
        if not deepest:
            raise Wrong("it is nested too deep")
        inner = plain(deepest - 1, most)
        return (list_of(inner) if isinstance(value, (list, tuple)) else mapping_of(inner))(value)

    return check


def _check_key(key: Any, check: Check) -> None:
    if not isinstance(key, str):
        raise Wrong(f"key {shown(key)} is not text; put it in quotes")
    check(key)


def _outside(low: float, high: float) -> str:
    if (low, high) == (-LARGEST, LARGEST):
        return "not finite"
    if high >= LARGEST:
        return f"not finite and at least {low:g}" if high == LARGEST else f"less than {low:g}"
    return f"not from {low:g} to {high:g}"


def printable(value: str) -> str:
    """The text with escapes for characters that a terminal obeys."""
    return value if value.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
