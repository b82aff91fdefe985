"""Ranks several plans for one request by measured losses, and names their files. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.choice.evidence import Evidence, members_of, scale_of
from bitplan.planner.choice.joint import readings_of
from bitplan.planner.errors import UserError
from bitplan.planner.extras import require
from bitplan.planner.files import beside, write_json, write_plan
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.progress import bar
from bitplan.planner.texts import table
from bitplan.plans.plan import Plan

JOINT = "joint"  # what `--rerank` calls the estimate with interactions
Losses = Mapping[str, tuple[float, float]]  # metric -> (mean, standard error)


@dataclass(frozen=True)
class RankedPlan:
    """One candidate measured end to end.

    Attributes:
        plan: the name of its file.
        predicted: its objective.
        measured: the objective with the measured losses.
        losses: metric -> (mean, standard error).
    """

    plan: str
    predicted: float
    measured: float
    losses: Losses


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order of their measured objective.

    Attributes:
        weights: column -> weight in the objective.
        plans: the best first.
    """

    weights: Mapping[str, float]
    plans: tuple[RankedPlan, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `P.ranking.json`."""
        return {"weights": dict(self.weights), "ranking": [asdict(each) for each in self.plans]}

    def __str__(self) -> str:
        rows = [(each.plan, f"{each.predicted:.6g}", f"{each.measured:.6g}") for each in self.plans]
        return table(rows, ("plan", "predicted", "measured"))


MOST = 1000  # candidates


def check_candidates(alone: bool, candidates: int, rerank: str | None, store: Profile) -> None:
    """Raise UserError, before any solve, for several candidates of a uniform plan, or a ranking that cannot be.

    alone: whether there can be one plan only.
    """
    if candidates > MOST:
        raise UserError(f"--candidates is {candidates}, and each is solved for; give at most {MOST}")
    if rerank == JOINT:
        readings_of(store)
    elif rerank:
        require("torch", "solve --rerank PIPELINE")
    if alone and (candidates != 1 or rerank):
        raise UserError(
            "a --uniform plan is one plan; leave --candidates and --rerank out, or measure it with evaluate"
        )


def sibling(out: Path, part: object) -> Path:
    """Return the path of `P.3.plan.yaml` beside `P.plan.yaml`."""
    stem = stem_of(out)
    return beside(out, f"{stem}.{part}{out.name.removeprefix(stem)}")


def stem_of(out: Path) -> str:
    """Return `P` of `P.plan.yaml`."""
    return out.name.removesuffix(".yaml").removesuffix(".plan")


def ranking_at(out: Path) -> Path:
    """Return the path of `P.ranking.json` beside `P.plan.yaml`."""
    return sibling(out, "ranking").with_suffix("").with_suffix(".json")


def rank(plans: Sequence[Plan], out: Path, evidence: Evidence, measure: Callable[[Plan], Losses]) -> Plan:
    """Measure every plan, write the best as `out` and the ranking as `P.ranking.json` beside it, and return the best.

    Raises PlanError, UserError, and the errors of `measure`.
    """
    ranked, path = [], ranking_at(out)
    for number, plan in enumerate(bar(plans, "measuring", len(plans), "plan")):
        losses = measure(plan)
        name = (sibling(out, number + 1) if len(plans) > 1 else out).name
        ranked.append(RankedPlan(name, plan.solver["objective"], score(plan, losses, evidence), losses))
    order = sorted(range(len(plans)), key=lambda i: ranked[i].measured)
    best = plans[order[0]]
    write_plan(best, out)
    ranking = Ranking(best.solver["weights"], tuple(ranked[i] for i in order))
    write_json(ranking.to_json(), path)
    return best


def score(plan: Plan, losses: Losses, evidence: Evidence) -> float:
    """Return the plan's objective with measured losses, in the units of the profile (see `evidence.scale_of`).

    Costs are as predicted. Metrics that were not measured again are left out.
    """
    total = 0.0
    for column, weight in plan.solver["weights"].items():
        members = [m for m in members_of(evidence, column) if m in losses]
        if members:
            total += weight * sum(losses[m][0] / scale_of(evidence, m) for m in members) / len(members)
        elif column in losses:
            total += weight * losses[column][0]
        else:
            total += weight * plan.predictions["total"][column]
    return total
