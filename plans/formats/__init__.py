"""Weight formats: the table of their terms. Imports no torch; `storage.py` packs and unpacks weights.

To add one: a file with a `Format` (see `base.py`) and a line here, or `register` from elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bitplan.plans.terms import Flag, Line, Number, Table


@dataclass(frozen=True)
class WeightFormat:
    """How a weight is stored.

    Attributes:
        kind: of its line in `FORMATS`: `int`, `fp8`, `keep`, or a member that was registered.
        bits: of a weight.
        group: consecutive inputs of an output channel that share a scale; None where all of them do.
        affine: whether each scale has a zero point beside it.
        least_squares: whether the range is that of least squared error, else min-max.
    """

    kind: str
    bits: int = 16
    group: int | None = None
    affine: bool = False
    least_squares: bool = False

    def __str__(self) -> str:
        line = FORMATS.get(self.kind)
        return line.write(asdict(self)) if line else self.kind


FORMATS: Table[Line] = Table("weight format")
register, unregister = FORMATS.register, FORMATS.unregister

register(Line(
    "int", "integers of 8 to 2 bits, packed; w = scale * (code - zero)", "bitplan.plans.formats.integer:INTEGER",
    parts=(Number("w", "bits", (8, 6, 5, 4, 3, 2), "weights have {choices} bits, not {value}"),
           Number("g", "group", (128, 64, 32), "groups have 32, 64 or 128 inputs, not {value}", optional=True),
           Flag("z", "affine"), Flag("m", "least_squares")),
    examples=("w8a8", "w6a8", "w5a8", "w4a8", "w4g64a8", "w4g64za8", "w3g64ma8", "w2g64ma8", "w4g64a16"),
))  # fmt: skip
register(Line(
    "fp8", "e4m3 floats with a scale for each output channel", "bitplan.plans.formats.floating:FP8", word="fp8",
    fixed=(("bits", 8),), examples=("fp8a16",),
))  # fmt: skip
register(Line(
    "keep", "the weight as it is", "bitplan.plans.formats.floating:KEPT", word="keep", fixed=(("bits", 16),),
    examples=("keep",),
))  # fmt: skip
