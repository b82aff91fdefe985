"""Find the plans that come with BitPlan by name: `scenes@12%` is one for `scenes` within 12 % of its bytes."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike
from bitplan.planner.texts import nearest
from bitplan.planner.units import parse_bytes, show_bytes
from bitplan.plans.plan import load_plan

if TYPE_CHECKING:
    from bitplan.plans.plan import Plan


def plan_in(plan: Plan | PathLike) -> Plan:
    """Return the plan; read it if it is a path or the name of a published plan. Raises UserError, PlanError."""
    from bitplan.plans.plan import Plan

    return plan if isinstance(plan, Plan) else load_plan(plan_file(plan))


def check_present(plan: Plan | PathLike) -> None:
    """Raise UserError where a plan's file does not exist, and where no plan is published by that name."""
    from bitplan.plans.plan import Plan

    if not isinstance(plan, Plan) and not (path := plan_file(plan)).exists():
        raise UserError(f"cannot read the plan {path}: there is no such file; check the path")


ROOT = Path(str(files("bitplan.plans"))) / "published"
_LIMIT = re.compile(r"bytes-(\d+)\.plan\.yaml")


def plan_file(name: str | Path) -> Path:
    """Return the path of a plan: `name` itself, or the file of the published plan `MODEL@MEMORY`.

    That is the plan with the largest budget that does not exceed MEMORY. A file that exists takes precedence.
    Raises UserError if no such plan is published.
    """
    model, at, memory = str(name).partition("@")
    if not at or Path(name).exists() or not re.fullmatch(r"[\w-]+", model):
        return Path(name)
    files = published(model)
    if not files:
        known = sorted(folder.name for folder in ROOT.glob("*/"))
        raise UserError(f"no plans are published for {model!r}; there are some for {', '.join(known)}; give a plan file"
                        f"{nearest(model, known)}")  # fmt: skip
    limit = parse_bytes(memory, _full_bytes(next(iter(files.values()))))
    within = [budget for budget in files if budget <= limit]
    if not within:
        raise UserError(f"the smallest plan published for {model} is for {show_bytes(min(files))}, above {memory}; "
                        f"see {ROOT / model}")  # fmt: skip
    return files[max(within)]


def _full_bytes(file: Path) -> int:
    """Return the bytes of the layers in full precision. The fast parser suffices: the package wrote these files."""
    data = yaml.load(file.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return sum(block["bytes"] for block in data["predictions"]["full"].values())


def published(model: str) -> dict[int, Path]:
    """Return budget in bytes -> plan file for all published plans of the model."""
    matches = {path: _LIMIT.fullmatch(path.name) for path in sorted((ROOT / model).rglob("*.plan.yaml"))}
    return {int(match[1]): path for path, match in matches.items() if match}
