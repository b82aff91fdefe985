"""The grammar of scheme texts, and the tables whose lines spell the terms. Imports no torch.

A line says how a member is written and where its code is; the code is imported on first use:

    Line("int", "integers of 8 to 2 bits", "bitplan.plans.formats.integer:INTEGER", parts=(
        Number("w", "bits", (8, 4), "weights have {choices} bits, not {value}"), Flag("z", "affine")))

reads and writes `w8`, `w8z`, `w4` and `w4z`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import product
from typing import Any, Protocol, TypeVar

LINEAR = ("linear",)
MULTIPLIED = ("linear", "conv1d", "conv2d", "conv3d")
EVERY_KIND = (*MULTIPLIED, "embedding")


class SchemeError(ValueError):
    """A text that does not name a scheme."""


class Named(Protocol):
    """A member of a table."""

    @property
    def name(self) -> str: ...


M = TypeVar("M", bound=Named)


class Table(dict[str, M]):
    """The members of one family by name, in the order in which they are tried and shown.

    Attributes:
        family: what a member is, for messages.
    """

    def __init__(self, family: str) -> None:
        super().__init__()
        self.family = family

    def register(self, member: M, before: str | None = None) -> M:
        """Add a member, last or in front of the member named `before`. Raises ValueError if its name is taken."""
        if member.name in self:
            raise ValueError(f"a {self.family} {member.name!r} exists already; choose another name")
        later = list(self)[list(self).index(before) :] if before is not None else []
        self[member.name] = member
        for name in later:
            self[name] = self.pop(name)
        return member

    def unregister(self, name: str) -> M:
        """Remove a member and return it. Raises KeyError if there is none of that name."""
        return self.pop(name)


@dataclass(frozen=True)
class Number:
    """A number in a text, behind its letter.

    Attributes:
        letter: the text in front of it, may be empty.
        field: the field of the term that holds it.
        choices: the values that it may have, best first.
        refusal: the sentence for any other value, with {choices} and {value}.
        optional: whether letter and number may be missing, which is None.
    """

    letter: str
    field: str
    choices: tuple[int, ...]
    refusal: str
    optional: bool = False

    @property
    def pattern(self) -> str:
        text = rf"{re.escape(self.letter)}(?P<{self.field}>\d+)"
        return f"(?:{text})?" if self.optional else text

    def read(self, text: str | None) -> int | None:
        """The number. Raises SchemeError if it is not one of the choices."""
        value = None if text is None else int(text)
        if value is not None and value not in self.choices:
            raise SchemeError(self.refusal.format(choices=", ".join(map(str, self.choices)), value=text))
        return value

    def write(self, value: Any) -> str:
        return "" if value is None else f"{self.letter}{value}"

    @property
    def values(self) -> tuple[int | None, ...]:
        return (None, *self.choices) if self.optional else self.choices


@dataclass(frozen=True)
class Flag:
    """A word that is there or not.

    Attributes:
        word: the text.
        field: the field of the term that is true where the word is there.
    """

    word: str
    field: str
    values = (False, True)

    @property
    def pattern(self) -> str:
        return f"(?P<{self.field}>{re.escape(self.word)})?"

    def read(self, text: str | None) -> bool:
        return text is not None

    def write(self, value: Any) -> str:
        return self.word if value else ""


@dataclass(frozen=True)
class Line:
    """One line of a table of terms: how a member is written, and where its code is.

    Attributes:
        name: the member's name, the `kind` or `name` of its terms.
        says: one line for tables.
        module: `package.module:NAME` of the member, imported on first use.
        word: the text that its terms begin with.
        parts: what follows the word, in order.
        fixed: fields that every term of it has, with their values.
        kinds: the kinds of layers (`bitplan.plans.kinds`) that it is defined for.
        only: why it is not defined for the other kinds.
        examples: scheme texts that show it.
    """

    name: str
    says: str
    module: str
    word: str = ""
    parts: tuple[Number | Flag, ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()
    kinds: tuple[str, ...] = EVERY_KIND
    only: str = ""
    examples: tuple[str, ...] = ()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.word) + "".join(part.pattern for part in self.parts))

    def read(self, match: re.Match[str]) -> dict[str, Any]:
        """The fields of the term that `pattern` matched. Raises SchemeError for a number that is not a choice."""
        return dict(self.fixed) | {part.field: part.read(match[part.field]) for part in self.parts}

    def write(self, fields: Mapping[str, Any]) -> str:
        """The text of a term with these fields."""
        return self.word + "".join(part.write(fields[part.field]) for part in self.parts)

    def every(self) -> Iterator[dict[str, Any]]:
        """The fields of each term that can be written."""
        names = [part.field for part in self.parts]
        for values in product(*(part.values for part in self.parts)):
            yield dict(self.fixed) | dict(zip(names, values, strict=True))

    def choices(self, field: str) -> tuple[Any, ...]:
        """The values that a field can have."""
        fixed = dict(self.fixed)
        return (fixed[field],) if field in fixed else next(part.values for part in self.parts if part.field == field)

    @cached_property
    def member(self) -> Any:
        """The code of it."""
        module, _, name = self.module.partition(":")
        return getattr(import_module(module), name)
