"""What the tests of profiles read of one: its digest, its rounds and its losses."""

from __future__ import annotations

from pathlib import Path

from bitplan.planner.profiles.profile import content_digest, open_profile
from bitplan.planner.profiles.responses import Probed, probed
from bitplan.sensitivity.table import Measurement


def digest(path: Path) -> str:
    with open_profile(path) as store:
        return content_digest(store)


def state(path: Path) -> Probed:
    with open_profile(path) as store:
        return probed(store)


def losses(path: Path) -> dict[tuple[str, str, str], Measurement]:
    with open_profile(path) as store:
        return {(m.layer, m.scheme, m.metric): m for m in store.measurements()}


def silent(*_: object) -> None:
    pass


def read_all(path: Path) -> tuple[object, ...]:
    with open_profile(path) as p:
        parts = p.header(), p.graph(), p.layers(), p.schemes(), p.ranges(), p.baseline(), p.costs(), p.measurements()
        return (*parts, p.families(), p.measured(), content_digest(p))
