"""Measures the input ranges of layers, and reads those of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bitplan.planner.measurement.worker import Settings
from bitplan.planner.pipelines.calling import settled
from bitplan.planner.pipelines.subject import conditions_in, run_subject
from bitplan.planner.pipelines.traced import Traced
from bitplan.planner.profiles.profile import Profile
from bitplan.sensitivity.calibration.ranges import ActivationRange, calibrate

BATCH = 16  # conditions a run


def calibrated_ranges(traced: Traced, settings: Settings, modules: Mapping[str, Any]) -> dict[str, ActivationRange]:
    """Measures the ranges of `modules`, layer address -> module, on the conditions of the settings."""
    conditions, seed = conditions_in(traced.subject, settings.prompts), settings.generation.seed
    run = partial(run_subject, traced.subject, conditions, seed, BATCH)
    return settled(traced.subject.run, lambda: calibrate(modules, run))


def stored_ranges(store: Profile) -> dict[str, ActivationRange]:
    """The ranges that the profile holds."""
    return {layer: ActivationRange(**fields) for layer, fields in store.ranges().items()}
