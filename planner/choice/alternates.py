"""Several plans for one request, in files beside each other, and put in order by measuring. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bitplan.planner.choice.evidence import Evidence, members_of, scale_of
from bitplan.planner.choice.joint import readings_of
from bitplan.planner.errors import UserError
from bitplan.planner.profiles.profile import Profile
from bitplan.plans.plan import Plan, save_plan

JOINT = "joint"  # what `--rerank` calls the estimate with interactions
Losses = Mapping[str, tuple[float, float]]  # metric -> (mean, standard error)


@dataclass(frozen=True)
class Ranked:
    """One candidate measured end to end. predicted: its objective; measured: the same, of the measured losses."""

    plan: str
    predicted: float
    measured: float
    losses: Losses


def check_asked(alone: bool, candidates: int, rerank: str | None, store: Profile) -> None:
    """Before anything is solved. alone: one plan is all that there can be. Raises UserError where more are asked for,
    or an order that the profile cannot give."""
    if rerank == JOINT:
        readings_of(store)
    if alone and (candidates != 1 or rerank):
        raise UserError(
            "a --uniform plan is one plan; leave --candidates and --rerank out, or measure it with evaluate"
        )


def sibling(out: Path, part: object) -> Path:
    """`P.3.plan.yaml` beside `P.plan.yaml`."""
    stem = out.name.removesuffix(".yaml").removesuffix(".plan")
    return out.with_name(f"{stem}.{part}{out.name.removeprefix(stem)}")


def save_candidates(plans: Sequence[Plan], out: Path) -> list[Path]:
    """The best as `out`, and, where there are several, each in a file of its own."""
    paths = [sibling(out, number + 1) for number in range(len(plans))] if len(plans) > 1 else []
    for plan, path in zip(plans, paths, strict=False):
        save_plan(plan, path)
    save_plan(plans[0], out)
    return paths


def rank(plans: Sequence[Plan], out: Path, evidence: Evidence, measure: Callable[[Plan], Losses]) -> Plan:
    """Measure every plan, write the best as `out` and the ranking as `P.ranking.json` beside it; the best is returned.

    Raises PlanError, UserError, and whatever `measure` raises.
    """
    ranked = []
    for number, plan in enumerate(plans):
        losses = measure(plan)
        name = (sibling(out, number + 1) if len(plans) > 1 else out).name
        ranked.append(Ranked(name, plan.solver["objective"], score(plan, losses, evidence), losses))
    order = sorted(range(len(plans)), key=lambda i: ranked[i].measured)
    best = plans[order[0]]
    save_plan(best, out)
    path = sibling(out, "ranking").with_suffix("").with_suffix(".json")
    text = json.dumps(
        {"weights": dict(best.solver["weights"]), "ranking": [asdict(ranked[i]) for i in order]}, indent=1
    )
    try:
        path.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from None
    return best


def score(plan: Plan, losses: Losses, evidence: Evidence) -> float:
    """The plan's objective with measured losses for predicted ones, metrics in the units of the profile (see
    `formulate.scale_of`); costs as predicted. A metric that was not measured again is left out."""
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
