"""What a kernel or an export target takes; whatever it does not list is declined by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from bitplan.plans.formats import FORMATS, WeightFormat
from bitplan.plans.inputs import INPUTS, InputFormat
from bitplan.plans.scheme import Scheme
from bitplan.plans.terms import Line, Table
from bitplan.plans.transforms import TRANSFORMS

ANY = None  # every value that the line of the table allows
Fields = Mapping[str, tuple[Any, ...] | None]  # field of a term -> the values taken, or ANY


@dataclass(frozen=True)
class Takes:
    """What is taken.

    Attributes:
        weights: kind of weight format -> its fields; a field without an entry must have its default. None: all that
            are registered, for a simulation that goes through the members themselves.
        inputs: the same of input formats.
        transforms: names of transforms; None likewise.
        reasons: `weights`, `inputs` or `transforms`, or one of them with a kind or field, as in `inputs.bits` -> why
            nothing else is taken, for the refusal.
    """

    weights: Mapping[str, Fields] | None
    inputs: Mapping[str, Fields] | None
    transforms: tuple[str, ...] | None = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    def declines(self, scheme: Scheme) -> str | None:
        """The term of `scheme` that is not taken, what is taken and why, in words; None where all is taken."""
        return (
            self._term("weights", scheme.weight, self.weights, FORMATS)
            or self._term("inputs", scheme.inputs, self.inputs, INPUTS)
            or self._transforms(scheme)
        )

    def _term(
        self, side: str, term: WeightFormat | InputFormat, taken: Mapping[str, Fields] | None, table: Table[Line]
    ) -> str | None:
        known = table if taken is None else taken
        if term.kind not in known or term.kind not in table:
            return self._sentence(side, ", ".join(known) or "none", str(term), term.kind)
        if taken is None:
            return None
        for name, default in _defaults(term).items():
            allowed = taken[term.kind].get(name, (dict(table[term.kind].fixed).get(name, default),))
            if allowed is not ANY and getattr(term, name) not in allowed:
                listed = f"{term.kind} with {name} {' or '.join(map(_shown, allowed))}"
                return self._sentence(side, listed, str(term), name)
        return None

    def _transforms(self, scheme: Scheme) -> str | None:
        known = tuple(TRANSFORMS) if self.transforms is None else self.transforms
        for term in scheme.transforms:
            if term.name not in known or term.name not in TRANSFORMS:
                taken = ", ".join(f"+{name}" for name in known) or "none"
                return self._sentence("transforms", taken, str(term), term.name)
        return None

    def _sentence(self, side: str, taken: str, term: str, topic: str) -> str:
        reason = self.reasons.get(f"{side}.{topic}") or self.reasons.get(side, "")
        return f"takes {side} {taken}, not {term}" + (f" ({reason})" if reason else "")


EVERYTHING = Takes(None, None, None)
INTEGERS: Fields = {"bits": ANY, "group": ANY, "affine": ANY, "least_squares": ANY}


def _defaults(term: WeightFormat | InputFormat) -> dict[str, Any]:
    """Field -> default, without the kind."""
    return {f.name: None if f.default is MISSING else f.default for f in fields(term) if f.name != "kind"}


def _shown(value: Any) -> str:
    return {True: "on", False: "off", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)
