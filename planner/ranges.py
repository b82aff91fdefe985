"""The calibrated range that a static activation format needs, out of what calibration saw. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plans.scheme import ActivationFormat


def static_range(seen: Mapping[str, Any], fmt: ActivationFormat) -> dict[str, float] | None:
    """`tensor`: the largest magnitude to represent, and `first`: that of the first token, where it is kept apart.

    seen: the fields of a `sensitivity.calibration.ActivationRange`. None for formats that find their range as they go.
    """
    if not fmt.static:
        return None
    if fmt.first_token:
        return {"tensor": seen["rest_absmax"], "first": seen["first_absmax"]}
    return {"tensor": seen["absmax"]}
