"""Schemes: how one layer's weights and inputs are stored, and the text form that names one. Imports no torch.

    w<bits>[g<group>][z][m]a<bits>[t][+first]    integer weights      w8a8  w4g64a8  w4g64zma16  w8a8t+first
    fp8a<bits>[t][+first]                        e4m3 weights         fp8a16
    keep                                         full precision

`g64`: one scale for every 64 consecutive inputs of an output channel, else one for the channel. `z`: a zero point
beside each scale (affine), else symmetric. `m`: the range of least squared error, else min-max. `a16`: inputs as they
come; `a8`, `a6`, `a4`: integers with a scale found per token as it arrives, or, with `t`, one calibrated scale per
tensor. `+first`: the first token has a calibrated scale of its own (only with `t`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitplan.plans.names import nearest


def static_range(seen: Mapping[str, Any], fmt: ActivationFormat) -> dict[str, float] | None:
    """`tensor`: the largest magnitude to represent, and `first`: that of the first token, where it is kept apart.

    seen: the fields of a `bitplan.sensitivity.calibration.ranges.ActivationRange`. None for formats that find their
    range as they go.
    """
    if not fmt.static:
        return None
    if fmt.first_token:
        return {"tensor": seen["rest_absmax"], "first": seen["first_absmax"]}
    return {"tensor": seen["absmax"]}


WEIGHT_BITS = (8, 6, 5, 4, 3, 2)
ACTIVATION_BITS = (16, 8, 6, 4)


EXAMPLES = ("w8a8", "w6a8", "w5a8", "w4a8", "w4g64a8", "w4g64za8", "w3g64ma8", "w2g64ma8", "w4g64a16", "w8a8t",
            "w8a8t+first", "w4a4", "fp8a16", "keep")  # fmt: skip


_PATTERN = re.compile(r"(?:w(\d+)(?:g(\d+))?(z?)(m?)|(fp8))a(\d+)(t?)((?:\+first)?)")


class SchemeError(ValueError):
    """A text that names no scheme."""


@dataclass(frozen=True)
class WeightFormat:
    """How a weight is stored. kind: `int`, `fp8` or `keep`; group: inputs that share a scale, None for all."""

    kind: str
    bits: int = 16
    group: int | None = None
    affine: bool = False
    least_squares: bool = False

    def __str__(self) -> str:
        if self.kind != "int":
            return self.kind
        group = f"g{self.group}" if self.group else ""
        return f"w{self.bits}{group}{'z' * self.affine}{'m' * self.least_squares}"


@dataclass(frozen=True)
class ActivationFormat:
    """How a layer's input is rounded. bits 16: not at all; static: one calibrated scale, else a scale per token."""

    bits: int = 16
    static: bool = False
    first_token: bool = False

    def __str__(self) -> str:
        return f"a{self.bits}{'t' * self.static}{'+first' * self.first_token}"


@dataclass(frozen=True)
class Scheme:
    """One choice for one layer; `str` gives its text form, `parse_scheme` reads it back."""

    weight: WeightFormat
    activation: ActivationFormat

    def __str__(self) -> str:
        return "keep" if self == KEEP else f"{self.weight}{self.activation}"


KEEP = Scheme(WeightFormat("keep"), ActivationFormat())


def parse_scheme(text: str) -> Scheme:
    """The scheme that `text` names. Raises SchemeError with the nearest known form."""
    scheme = KEEP if text == "keep" else _parse(text)
    if str(scheme) != text:
        raise SchemeError(f"{text!r} is written {str(scheme)!r}; each scheme has one text form")
    return scheme


def _parse(text: str) -> Scheme:
    match = _PATTERN.fullmatch(text)
    if not match:
        raise SchemeError(f"{text!r} names no scheme{nearest(text, EXAMPLES)} (forms: {', '.join(EXAMPLES)})")
    bits, group, affine, least, fp8, act, static, first = match.groups()
    if int(act) not in ACTIVATION_BITS:
        raise SchemeError(f"{text!r}: activations have {', '.join(map(str, ACTIVATION_BITS))} bits, not {act}")
    if (first and not static) or (static and act == "16"):
        raise SchemeError(f"{text!r}: `t` needs 8, 6 or 4 activation bits, and `+first` needs `t`")
    activation = ActivationFormat(int(act), bool(static), bool(first))
    if fp8:
        return Scheme(WeightFormat("fp8", 8), activation)
    if int(bits) not in WEIGHT_BITS:
        raise SchemeError(f"{text!r}: weights have {', '.join(map(str, WEIGHT_BITS))} bits, not {bits}")
    if group is not None and int(group) not in (32, 64, 128):
        raise SchemeError(f"{text!r}: groups have 32, 64 or 128 inputs, not {group}")
    weight = WeightFormat("int", int(bits), int(group) if group else None, bool(affine), bool(least))
    return Scheme(weight, activation)
