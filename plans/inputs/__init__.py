"""Input formats, how a layer's input is rounded: the table of their terms. Imports no torch.

To add one: a file with an `Inputs` (see `base.py`) and a line here, or `register` from elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bitplan.plans.terms import MULTIPLIED, Flag, Line, Number, Table


@dataclass(frozen=True)
class InputFormat:
    """How a layer's input is rounded.

    Attributes:
        kind: of its line in `INPUTS`: `float` (not at all), `int`, or a member that was registered.
        bits: of a number of the input; 16 where nothing is rounded.
        static: whether one calibrated scale serves the whole input, else each row finds its own as it arrives.
    """

    kind: str = "float"
    bits: int = 16
    static: bool = False

    def __str__(self) -> str:
        line = INPUTS.get(self.kind)
        return line.write(asdict(self)) if line else f"{self.kind}{self.bits}"


INPUTS: Table[Line] = Table("input format")
register, unregister = INPUTS.register, INPUTS.unregister

register(Line("float", "inputs as they come", "bitplan.plans.inputs.floating:AS_THEY_COME", word="a16"))
register(Line(
    "int", "symmetric integers, a scale for each row or one calibrated scale (`t`)",
    "bitplan.plans.inputs.integer:INTEGER", kinds=MULTIPLIED,
    parts=(Number("a", "bits", (8, 6, 4), "inputs have {choices} bits, or a16 without `t`, not a{value}"),
           Flag("t", "static")),
    only="its inputs are row numbers, which nothing rounds; give it a16", examples=("w8a8t", "w4a4"),
))  # fmt: skip
