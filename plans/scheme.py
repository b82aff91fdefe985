"""Schemes: how one layer's weights and inputs are stored, and the text form that names one. Imports no torch.

A scheme is a weight format, an input format and a tuple of transforms. Its text is the weight's term, the input's term
and `+` with the term of each transform; the tables `FORMATS`, `INPUTS` and `TRANSFORMS` spell the terms:

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bitplan.plans.formats import FORMATS, WeightFormat
from bitplan.plans.inputs import INPUTS, InputFormat
from bitplan.plans.names import nearest
from bitplan.plans.terms import Line, SchemeError
from bitplan.plans.transforms import TRANSFORMS, Term, TransformLine

__all__ = ["EXAMPLES", "KEEP", "WEIGHT_BITS", "InputFormat", "Scheme", "SchemeError", "Term", "WeightFormat",
           "every_scheme", "examples", "parse_scheme", "range_keys", "static_range"]  # fmt: skip
WEIGHT_BITS: tuple[int, ...] = FORMATS["int"].choices("bits")


@dataclass(frozen=True)
class Scheme:
    """One choice for one layer; `str` gives its text form, `parse_scheme` reads it back.

    Attributes:
        weight: how the weight is stored, after the transforms.
        inputs: how the input is rounded, after the transforms.
        transforms: the transforms, in the order of their table.
    """

    weight: WeightFormat
    inputs: InputFormat
    transforms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return "keep" if self == KEEP else f"{self.weight}{self.inputs}{''.join(map(str, self.transforms))}"

    @property
    def shared_side(self) -> str:
        """What layers that read one input must have in common: the input format and transforms of scope `inputs`."""
        shared = (t for t in self.transforms if t.name in TRANSFORMS and TRANSFORMS[t.name].scope == "inputs")
        return f"{self.inputs}{''.join(map(str, shared))}"


def weights_alone(scheme: Scheme) -> Scheme:
    """Returns the scheme of the same weights with inputs as they are."""
    return Scheme(scheme.weight, KEEP.inputs)


_WHOLE = (("tensor", "absmax"),)
KEEP = Scheme(WeightFormat("keep"), InputFormat())


def examples() -> tuple[str, ...]:
    """Scheme texts that show each line of the tables."""
    lines: list[Line] = [*FORMATS.values(), *INPUTS.values(), *TRANSFORMS.values()]
    return tuple(text for line in lines for text in line.examples)


EXAMPLES = examples()


def parse_scheme(text: str) -> Scheme:
    """The scheme that `text` names. Raises SchemeError with the nearest known form."""
    scheme = KEEP if text == "keep" else _parse(text)
    if str(scheme) != text:
        raise SchemeError(f"{text!r} is written {str(scheme)!r}; each scheme has one text form")
    return scheme


def every_scheme() -> tuple[Scheme, ...]:
    """Each scheme of at most one transform that can be written."""
    weights = [WeightFormat(line.name, **fields) for line in _weight_lines() for fields in line.every()]
    inputs = [InputFormat(line.name, **fields) for line in INPUTS.values() for fields in line.every()]
    return (KEEP, *(Scheme(weight, fmt, terms) for weight in weights for fmt in inputs for terms in _terms_for(fmt)))


def _terms_for(inputs: InputFormat) -> Iterator[tuple[Term, ...]]:
    yield ()
    for line in TRANSFORMS.values():
        if inputs.static or not line.static:
            yield from ((Term(line.name, tuple(fields.values())),) for fields in line.every())


def static_range(observed: Mapping[str, Any], scheme: Scheme) -> dict[str, float] | None:
    """The magnitudes that static inputs must represent, by their key in the plan; None for other inputs.

    Args:
        observed: the fields of a `bitplan.sensitivity.calibration.ranges.ActivationRange`.
        scheme: of the layer.
    """
    return {key: observed[name] for key, name in range_keys(scheme)} or None


def range_keys(scheme: Scheme) -> tuple[tuple[str, str], ...]:
    """(key in the plan, number that calibration observed) of each range of static inputs; none for other inputs."""
    if not scheme.inputs.static:
        return ()
    lines = (TRANSFORMS[term.name] for term in scheme.transforms)
    return next((line.ranges for line in lines if line.ranges), _WHOLE)


def _weight_lines() -> list[Line]:
    """Return the lines of the weight formats that need an input format: all except `keep`."""
    return [line for line in FORMATS.values() if line.name != KEEP.weight.kind]


def _parse(text: str) -> Scheme:
    try:
        head, *words = text.split("+")
        weight, inputs = _weight_and_inputs(head)
        return Scheme(weight, inputs, _transforms(words, inputs))
    except _UnknownFormError:
        forms = examples()
        raise SchemeError(f"{text!r} names no scheme{nearest(text, forms)} (forms: {', '.join(forms)})") from None
    except SchemeError as error:
        raise SchemeError(f"{text!r}: {error}") from None


class _UnknownFormError(Exception):
    """No line has this form."""


def _weight_and_inputs(head: str) -> tuple[WeightFormat, InputFormat]:
    """Raises _UnknownFormError, or SchemeError for a number that a term of this form does not have."""
    refusal: Exception = _UnknownFormError()
    for line, match, other, rest in _readings(head):
        try:
            return WeightFormat(line.name, **line.read(match)), InputFormat(other.name, **other.read(rest))
        except SchemeError as error:
            refusal = error
    raise refusal


def _readings(head: str) -> Iterator[tuple[Line, re.Match[str], Line, re.Match[str]]]:
    for line in _weight_lines():
        if match := line.pattern.match(head):
            for other in INPUTS.values():
                if rest := other.pattern.fullmatch(head, match.end()):
                    yield line, match, other, rest


def _transforms(words: list[str], inputs: InputFormat) -> tuple[Term, ...]:
    """In the order of their table, each once. Raises as `_weight_and_inputs`."""
    terms: dict[str, Term] = {}
    for word in words:
        line, match = _transform_line(word)
        if line.static and not inputs.static:
            raise SchemeError(f"`+{word}` needs `t`, one calibrated range for the inputs")
        terms[line.name] = Term(line.name, tuple(line.read(match).values()))
    return tuple(terms[name] for name in TRANSFORMS if name in terms)


def _transform_line(word: str) -> tuple[TransformLine, re.Match[str]]:
    for line in TRANSFORMS.values():
        if match := line.pattern.fullmatch(word):
            return line, match
    raise _UnknownFormError
