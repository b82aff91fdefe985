"""What the verbs make of their arguments. Imports no torch by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike, check_place
from bitplan.plans.dtypes import FLOAT32

DEFAULT_SCHEMES = ("w8a8", "w6a8", "w5ma8", "w4ma8", "w3ma8", "w2ma8", "w4g64ma8", "w3g64ma8", "w2g64ma8")
KERNELS = ("int", "fake")
BASELINES = ("float32", "bfloat16", "float16")  # that plans are timed against
CHECKS = 16


def check_bench(against: Sequence[str], pairs: int, out: PathLike | None) -> None:
    """Raises UserError for baselines that are none, for no pairs, and for a folder that is not there."""
    if unknown := [name for name in against if name not in BASELINES]:
        raise UserError(f"there is no baseline {unknown[0]!r}; choose from {', '.join(BASELINES)}")
    if not against or pairs < 1:
        raise UserError(f"{pairs} pairs against {len(against)} baselines time nothing; ask for at least 1 of each")
    if out is not None:
        check_place(out)


def check_sample(sample: int, tolerance: float, out: PathLike | None) -> None:
    """Raises UserError for a sample or a tolerance that decides nothing, and for a folder that is not there."""
    if sample < 1:
        raise UserError(f"a sample of {sample} pairs tells nothing; ask for some, such as 24")
    if not 0 < tolerance < math.inf:
        raise UserError(f"--tolerance {tolerance} is no share; give a number above 0, such as 0.25")
    if out is not None:
        check_place(out)


def check_painted(images: int, points: int | None, count: int | None) -> None:
    """Raises UserError for numbers of pictures, of points and of prompts that make no pictures."""
    if images < 0 or (points is not None and points < 1):
        raise UserError(f"{images} images of {points} points are none; ask for at least 1 of each")
    if not images and (points is not None or count is not None):
        raise UserError("what is painted and measured is told by --images; give it, such as --images 8")
    if count is not None and count < max(images, 2):
        raise UserError(f"{images} images are painted and {count} prompts measured; measure at least {max(images, 2)}")


def checks_of(asked: int | None, dtype: str) -> int:
    """How many estimates are measured exhaustively, too."""
    return asked if asked is not None else CHECKS if dtype == FLOAT32 else 0


def part_of(text: str | None) -> tuple[int, int]:
    """`2/3` as (2, 3), nothing as (1, 1). Raises UserError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, shares = (int(digits) for digits in found.groups()) if found else (0, 0)
    if not 1 <= number <= shares:
        raise UserError(f"--part {text} is no share; write 1/3, 2/3 and 3/3, one on each of three machines")
    return number, shares


def seconds_of(text: str | None) -> float:
    """`90s`, `10m` or `2h` in seconds, nothing as endless. Raises UserError."""
    if text is None:
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text.strip())
    if not found or not float(found[1]):
        raise UserError(f"--time {text} is no time; write for example 90s, 10m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def check_kernels(kernels: str) -> None:
    """Raises UserError for kernels that there are not."""
    if kernels not in KERNELS:
        raise UserError(f"there are no {kernels!r} kernels; choose {' or '.join(KERNELS)}")
