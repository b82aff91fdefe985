"""What schemes gain or cost in time on the machine that timed a profile. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bitplan.planner.profiles.profile import Cost, Profile
from bitplan.planner.profiles.timings import steadied
from bitplan.planner.units import show_milliseconds

FULL = "keep"  # the scheme of full precision
# keys of the profile's baseline that belong to its milliseconds
PRODUCTS = "int8 products"  # how the timing machine multiplied int8 codes, in words
TIMED = "timed on"  # the calls that were timed, in words
ONE = "one output at a time, guidance included"  # what `profile` times


def speeds_of(store: Profile) -> dict[str, float]:
    """Scheme -> the time of the layers that it is offered to, over their time in full precision. Schemes that no kernel
    runs, and profiles without times, are left out."""
    return _speeds(steadied(store.costs()), store.schemes())


def _speeds(every: Sequence[Cost], schemes: Sequence[str]) -> dict[str, float]:
    costs = [cost for cost in every if cost.ms is not None and not cost.simulated]
    full = {cost.layer: cost.ms for cost in costs if cost.scheme == FULL}
    speeds = {}
    for scheme in schemes:
        own = [cost for cost in costs if cost.scheme == scheme != FULL and cost.layer in full]
        if base := math.fsum(full[cost.layer] or 0.0 for cost in own):
            speeds[scheme] = math.fsum(cost.ms or 0.0 for cost in own) / base
    return speeds


def speeds_text(store: Profile, costs: Sequence[Cost] | None = None) -> str:
    """One line: full precision's milliseconds, of which calls, and each scheme's time as a multiple; empty without
    times.

    costs: `steadied` costs of the profile, where they are at hand.
    """
    costs = steadied(store.costs()) if costs is None else costs
    speeds = _speeds(costs, store.schemes())
    if not speeds:
        return ""
    full = math.fsum(cost.ms or 0.0 for cost in costs if cost.scheme == FULL)
    listed = ", ".join(f"{scheme} {ratio:.2f}x" for scheme, ratio in speeds.items())
    products, calls = (store.baseline().get(key) for key in (PRODUCTS, TIMED))
    of = f" for {calls}" if calls else ""
    text = f"time of the layers{of}: {show_milliseconds(full)} in full precision; {listed}"
    return f"{text}; {products}" if products else text
