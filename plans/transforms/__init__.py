"""Transforms of a layer's weight and input: the table of their terms. Imports no torch.

To add one: a file with a `Transform` (see `base.py`) and a line here, or `register` from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitplan.plans.terms import LINEAR, Line, Table


@dataclass(frozen=True)
class Term:
    """One transform of a scheme, written `+` and its line's text.

    Attributes:
        name: of its line in `TRANSFORMS`.
        numbers: what its text holds beside the word, in the order of the line's parts.
    """

    name: str
    numbers: tuple[int | bool | None, ...] = ()

    def __str__(self) -> str:
        line = TRANSFORMS.get(self.name)
        if line is None:
            return f"+{self.name}{''.join(map(str, self.numbers))}"
        return "+" + line.write(dict(zip((part.field for part in line.parts), self.numbers, strict=True)))


@dataclass(frozen=True)
class TransformLine(Line):
    """A line of the table of transforms.

    Attributes:
        scope: `inputs` if all layers that read one input must have it alike, and share what is fitted; else `layer`.
        static: whether it needs inputs with a calibrated range (`t`).
        ranges: (key in the plan's ranges, number that calibration observed) of each range that it makes of one.
        requires: what calibration must have observed of a layer for it to be offered there; empty for nothing.
    """

    scope: str = "layer"
    static: bool = False
    ranges: tuple[tuple[str, str], ...] = ()
    requires: str = ""


TRANSFORMS: Table[TransformLine] = Table("transform")
register, unregister = TRANSFORMS.register, TRANSFORMS.unregister

register(TransformLine(
    "first", "the first token has a calibrated range of its own", "bitplan.plans.transforms.first_token:FIRST_TOKEN",
    word="first", kinds=LINEAR, only="such an input has no first token", examples=("w8a8t+first",), scope="inputs",
    static=True, ranges=(("tensor", "rest_absmax"), ("first", "first_absmax")), requires="first_constant",
))  # fmt: skip
