"""Checks and conversions of the verbs' arguments. Imports no torch by itself."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError
from bitplan.planner.extras import require
from bitplan.planner.files import PathLike
from bitplan.planner.verbs.parameters import BASELINES
from bitplan.plans.dtypes import FLOAT32

if TYPE_CHECKING:
    from bitplan.solvers.effort import Effort

CHECKS = 16


def check_bench(against: Sequence[str], pairs: int) -> None:
    """Raises UserError for unknown baselines and for no pairs."""
    if unknown := [name for name in against if name not in BASELINES]:
        raise UserError(f"there is no baseline {unknown[0]!r}; choose from {', '.join(BASELINES)}")
    if not against or pairs < 1:
        raise UserError(f"{pairs} pairs against {len(against)} baselines time nothing; ask for at least 1 of each")


def check_sample(sample: int, tolerance: float) -> None:
    """Raises UserError for an empty sample and for a tolerance that is not a share."""
    if sample < 1:
        raise UserError(f"a sample of {sample} pairs tells nothing; ask for some, such as 24")
    if not 0 < tolerance < math.inf:
        raise UserError(f"--tolerance {tolerance} is not a share; give a number above 0, such as 0.25")


def check_painted(images: int, points: int | None, count: int | None) -> None:
    """Raises UserError for numbers of images, limits and prompts that do not go together, and where nothing paints."""
    if images < 0 or (points is not None and points < 1):
        raise UserError(f"{images} images of {points} points are none; ask for at least 1 of each")
    if not images and (points is not None or count is not None):
        raise UserError("without images, nothing is painted and measured; add --images, such as --images 8")
    if count is not None and count < max(images, 2):
        raise UserError(f"{images} images are painted and {count} prompts measured; measure at least {max(images, 2)}")
    if images:
        require("torch", "sweep --images")


def place_of(out: PathLike | None, estimate: bool) -> Path | None:
    """Where a profile is written; None for an estimate. Raises UserError unless one of both is asked for."""
    if (out is None) != estimate:
        raise UserError("profile takes --out FILE, or else --estimate, which writes nothing; give one of them")
    return None if out is None else Path(out)


def tell_begun(out: Path | None) -> None:
    """Say where an interrupt leaves what an earlier run measured."""
    from bitplan.planner.interrupts import keeps
    from bitplan.planner.measurement.run import kept_in

    if out is not None and out.exists():
        keeps(kept_in(out))


def checks_of(checks: int | None, dtype: str) -> int:
    """The number of estimates that are also measured exhaustively: `checks`, or the float type's default."""
    return checks if checks is not None else CHECKS if dtype == FLOAT32 else 0


def effort_of(time_limit: float, gap: float, backend: str | None) -> Effort:
    """The effort of a search that shows that it goes on. Prints why an installed backend is not used.

    Raises ProblemError, BackendError.
    """
    from bitplan.planner.progress import current
    from bitplan.solvers.effort import Effort
    from bitplan.solvers.programs.backends import backend_named

    if note := backend_named(backend).note:
        print(note, file=sys.stderr)
    return Effort(time_limit, gap, backend, lambda: current().tick())


def part_of(text: str | None) -> tuple[int, int]:
    """`2/3` as (2, 3), None as (1, 1). Raises UserError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, shares = (int(digits) for digits in match.groups()) if match else (0, 0)
    if not 1 <= number <= shares:
        raise UserError(f"--part {text} is not a share; write 1/3, 2/3 and 3/3, one on each of three machines")
    return number, shares


def seconds_of(text: str | None) -> float:
    """`90s`, `10m` or `2h` in seconds, None as infinity. Raises UserError."""
    if text is None:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text.strip())
    if not match or not float(match[1]):
        raise UserError(f"--time {text} is not a time; write for example 90s, 10m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
