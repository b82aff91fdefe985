"""What two profiles have in common where everything that is planned from them is the same. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from bitplan.planner.profiles.profile import Cost, Profile, content_digest


def profile_digest(store: Profile) -> str:
    """Returns the sha256 (hex) of a profile's header, costs and measurements."""
    costs = [_facts(cost) for cost in store.costs()]
    return digest_of([store.header(), costs, content_digest(store)])


def digest_of(value: Any) -> str:
    """Returns the sha256 (hex) of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _facts(cost: Cost) -> list[Any]:
    """Returns the values of a cost; without an error, those of formats that have none, whose digests stay the same."""
    values = [cost.layer, cost.scheme, cost.bytes, cost.ms, cost.kernel, cost.simulated]
    return values if cost.error is None else [*values, cost.error]
