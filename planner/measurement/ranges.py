"""Reads the input ranges of layers in a profile."""

from __future__ import annotations

from bitplan.planner.profiles.profile import Profile
from bitplan.sensitivity.calibration.ranges import ActivationRange


def stored_ranges(store: Profile) -> dict[str, ActivationRange]:
    """The ranges that the profile holds."""
    return {layer: ActivationRange(**fields) for layer, fields in store.ranges().items()}
