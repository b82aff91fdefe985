"""What the verbs make of their arguments. Imports no torch by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import UserError

if TYPE_CHECKING:
    from planner.calling import Generation
    from planner.subject import Subject
    from plans.plan import Plan

KERNELS = ("int", "fake")
BASELINES = ("float32", "bfloat16", "float16")  # that plans are timed against
SPACINGS = ("log", "linear")  # of the limits of a sweep
FLOAT32 = "float32"
DTYPES = (FLOAT32, "bfloat16")  # of pipelines; the gradients of float16 would leave its range
CHECKS = 16
PathLike = str | Path


def generation_of(
    pipeline: str | Subject, steps: int | None, guidance: float | None, seed: int, call: Mapping[str, Any] | None = None
) -> Generation:
    """How images are made, the pipeline's own defaults where nothing is said. Raises UserError."""
    from planner.calling import Generation
    from planner.pipelines import DEFAULTS, FALLBACK
    from planner.references import is_reference

    named = isinstance(pipeline, str) and not is_reference(pipeline)
    default = DEFAULTS.get(pipeline, FALLBACK) if named else Generation()
    if steps is not None and steps < 1:
        raise UserError(f"{steps} steps make no image; ask for at least 1")
    if guidance is not None and not math.isfinite(guidance):
        raise UserError(f"--guidance {guidance} is no scale; give a finite number, such as 7.5")
    return Generation(
        steps or default.steps, default.guidance if guidance is None else guidance, seed, dict(call or {})
    )


def conditions_in(given: PathLike | Sequence[Any] | None) -> list[Any] | None:
    """The prompts or other conditions given, read from a file where they are a path. Raises UserError."""
    from planner.conditions import read_conditions

    if given is None:
        return None
    return read_conditions(Path(given)) if isinstance(given, (str, Path)) else list(given)


def check_dtype(name: str, runs: bool) -> None:
    """Raises UserError for a float type that pipelines are not measured in. runs: whether one changed layer is to be
    told by a run of the whole model: in 16 bits that shows the rounding of everything else, whatever was changed."""
    if name not in DTYPES:
        raise UserError(f"pipelines are measured in {' or '.join(DTYPES)}, not {name!r}; choose one of them")
    if runs and name != FLOAT32:
        raise UserError(
            f"a run in {name} shows the rounding of all layers, not what one scheme did; there, profile by probes with "
            f"neither --checks nor --time, or use --dtype {FLOAT32}"
        )


def check_bench(against: Sequence[str], pairs: int, out: PathLike | None) -> None:
    """Raises UserError for baselines that are none, for no pairs, and for a folder that is not there."""
    if unknown := [name for name in against if name not in BASELINES]:
        raise UserError(f"there is no baseline {unknown[0]!r}; choose from {', '.join(BASELINES)}")
    if not against or pairs < 1:
        raise UserError(f"{pairs} pairs against {len(against)} baselines time nothing; ask for at least 1 of each")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise UserError(f"the folder of {out} does not exist; make it, or choose another --out")


def check_sample(sample: int, tolerance: float, out: PathLike | None) -> None:
    """Raises UserError for a sample or a tolerance that decides nothing, and for a folder that is not there."""
    if sample < 1:
        raise UserError(f"a sample of {sample} pairs tells nothing; ask for some, such as 24")
    if not 0 < tolerance < math.inf:
        raise UserError(f"--tolerance {tolerance} is no share; give a number above 0, such as 0.25")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise UserError(f"the folder of {out} does not exist; make it, or choose another --out")


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


def dtype_of(plans: Iterable[Plan]) -> str:
    """The float type that all the plans were made in. Raises UserError where they differ."""
    found = dict.fromkeys(plan.model.get("dtype", FLOAT32) for plan in plans)
    if len(found) > 1:
        raise UserError(f"the plans were made in {' and '.join(found)}; take those of one type at a time")
    return next(iter(found), FLOAT32)


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


def plan_in(plan: Plan | PathLike) -> Plan:
    """The plan itself, read where it is a path, or the name of a published one. Raises UserError, PlanError."""
    from planner.published import plan_file
    from plans.plan import Plan, load_plan

    return plan if isinstance(plan, Plan) else load_plan(plan_file(plan))


def plans_in(paths: Sequence[PathLike]) -> dict[str, Plan]:
    """Name of the file -> plan. Raises UserError where they cannot be told apart or compared, PlanError."""
    from planner.evaluation_report import check_comparable

    plans = {Path(path).name.removesuffix(".yaml").removesuffix(".plan"): plan_in(path) for path in paths}
    check_comparable(plans, len(paths))
    return plans
