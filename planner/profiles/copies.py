"""New profiles that appear whole or not at all, and copies between profiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.files import check_place, written
from bitplan.planner.profiles.fitted import read_parameters, write_parameters
from bitplan.planner.profiles.profile import Profile


def check_new(out: Path) -> None:
    """Raises UserError if the file exists or its folder does not."""
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out")
    check_place(out, "profile")


@contextmanager
def new_profile(out: Path, header: Mapping[str, Any]) -> Iterator[Profile]:
    """Yields an empty profile that becomes `out` in one move when the block ends without an error.

    Raises ProfileError, and UserError as `check_new`.
    """
    check_new(out)
    with written(out, "profile") as partial:
        partial.unlink(missing_ok=True)
        with Profile.create(partial, header) as store:
            yield store


def copy_without_costs(source: Profile, target: Profile) -> None:
    """Copies everything but the costs into a new profile."""
    target.write_graph(source.graph(), source.schemes())
    target.write_baseline(source.baseline())
    target.write_ranges(source.ranges())
    write_parameters(target, read_parameters(source))
    target.write_measurements(source.measurements(), source.families(), source.responses())
