"""The commands that are suggested after a verb. Each can be run as it stands, once its names in capitals are filled in.

Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.choice.evidence import KEEP, Evidence, read_evidence
from bitplan.planner.errors import UserError
from bitplan.planner.texts import shell_command

if TYPE_CHECKING:
    from bitplan.planner.profiles.profile import Profile
    from bitplan.plans.plan import Plan

PIPELINE, OTHER = "PIPELINE", "OTHER.profile"  # names to fill in
_ROOM = 1.15  # what is suggested as a budget, at least, over the least that is possible
_PLAIN_NAME = re.compile(r"[\w./ ][\w./ -]*")


def after_profile(
    store: Profile, out: Path, part: str | None, latency: bool = False, target: str | None = None
) -> str:  # fmt: skip
    """What to do with a profile that was measured, merged, imported or timed.

    part: the share of the layers that it holds, as --part names it; latency: suggest a budget on time where one can be
    met; target: the tool that it was measured for.
    """
    if part and part.partition("/")[2] != "1":
        whole = out.with_name(f"whole-{out.name}")
        command = shell_command("bitplan", "merge", out, OTHER, "--out", whole)
        return f"{command}, where {OTHER} stands for the other shares"
    try:
        evidence = read_evidence(store, None, target)
    except UserError:  # it is not finished
        return shell_command("bitplan", "inspect", out)
    tool = ("--target", target) if target else ()
    return shell_command("bitplan", "solve", out, *tool, *budget_of(evidence, latency), "--out", "P.plan.yaml")


def after_solve(plan: Plan, header: Mapping[str, Any], out: Path) -> str:
    """How the plan is applied to the pipeline that was profiled, called on what it was measured on."""
    name = str(plan.model["name"])  # of the profile's file: what is suggested must neither run code nor surprise
    pipeline = name if _PLAIN_NAME.fullmatch(name) else PIPELINE
    fake = ("--kernels", "fake") if plan.simulated else ()
    command = shell_command("bitplan", "apply", out, pipeline, *fake)
    return f"{command}{_conditions(header)} --out img.png"


def _conditions(header: Mapping[str, Any]) -> str:
    """The option that says what to paint: a Subject has conditions of its own, and some pipelines take none."""
    conditions = header["settings"].get("prompts", ())
    if header["model"].get("pipeline") == "Subject" or not conditions:
        return ""
    if all(isinstance(each, str) for each in conditions):
        return " --prompt '...'"
    return " --prompts CONDITIONS.yaml" if any(conditions) else ""


def budget_of(evidence: Evidence, latency: bool) -> tuple[str, str]:
    """A budget that some plan meets: a share of full precision, with some room for layers that must agree."""
    if latency and _least(evidence, evidence.ms) * _ROOM <= 0.8:
        return "--latency", "80%"
    share = max(0.3, _least(evidence, evidence.size) * _ROOM)
    return "--memory", f"{math.ceil(min(share, 1.0) * 20) * 5}%"


def _least(evidence: Evidence, costs: Mapping[tuple[str, str], float]) -> float:
    """The least sum of a cost that real kernels reach, over that of full precision; 1 where nothing is known."""
    full = sum(costs[layer, KEEP] for layer in evidence.offered)
    least = sum(
        min(costs[layer, scheme] for scheme in schemes if (layer, scheme) not in evidence.simulated)
        for layer, schemes in evidence.offered.items()
    )
    return least / full if full else 1.0
