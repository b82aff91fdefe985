"""A solution as a plan, and a plan as the problem that it answers. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bitplan.planner.choice.evidence import KEEP, Evidence, groups_of
from bitplan.planner.choice.fitted import shared_parameters
from bitplan.planner.choice.problem import formulate
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import blocks_of
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.units import COSTS
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import parse_scheme, static_range
from bitplan.solvers.problem import Budget, Picks, Problem, pin, plain
from bitplan.solvers.solution import Choice, Solution, choice_of

STEPS = {"bytes": 2**20, "ms": 1.0}  # what one more of is told: a MiB, a millisecond


@dataclass(frozen=True)
class Provenance:
    """What a plan says of how it was found. solution: None for a uniform plan; pins: layer -> scheme; confidence: of
    the losses' upper bounds, None for their means; worth: column -> what one more step of it saves."""

    solution: Solution | None
    pins: Mapping[str, str] = field(default_factory=dict)
    confidence: float | None = None
    worth: Mapping[str, float] = field(default_factory=dict)


def plan_of(store: Profile, evidence: Evidence, answer: tuple[Problem, Choice], told: Provenance) -> Plan:
    """The plan of a choice. Each column has at most one budget."""
    problem, chosen = answer
    header = store.header()
    groups = groups_of(evidence)
    scheme_of = {layer: chosen.names[group] for group, layers in groups.items() for layer in layers}
    schemes = {layer: scheme_of[layer] for layer in store.layers()}
    model, settings = header["model"], header["settings"]
    return Plan(
        model={
            key: model[key] for key in ("name", "dtype", "fingerprint", "architecture", "components") if key in model
        },
        schemes=schemes,
        simulated=tuple(layer for layer, scheme in schemes.items() if (layer, scheme) in evidence.simulated),
        calibration={
            "prompts": len(settings["prompts"]),
            "prompts_sha256": hashlib.sha256("\n".join(map(_line, settings["prompts"])).encode()).hexdigest(),
            **{key: value for key, value in settings["generation"].items() if key != "steps" or value is not None},
            **({"metrics": list(settings["metrics"])} if settings.get("metrics") else {}),
            "ranges": _ranges(schemes, store.ranges()),
        },
        budgets={budget.column: plain(budget.limit) for budget in problem.budgets},
        predictions=predict(evidence, chosen.picks),
        solver=_solver(problem, told),
        **shared_parameters(store, schemes, evidence.shared),
    )


def _line(condition: Any) -> str:
    return condition if isinstance(condition, str) else json.dumps(condition, sort_keys=True)


def predict(evidence: Evidence, picks: Picks) -> dict[str, Any]:
    """The sums of every column, losses at their means, in all and by block of layers; those of the costs with every
    layer kept, by block. picks: one flat index a group."""
    problem, groups = formulate(replace(evidence, z=0.0), {}, (), real=False), groups_of(evidence)
    kept = [int(start) + names.index(KEEP) for start, names in zip(problem.offsets, problem.candidates, strict=False)]
    return {
        "total": dict(choice_of(problem, picks).totals),
        "blocks": _by_block(problem, groups, picks, tuple(problem.columns)),
        "full": _by_block(problem, groups, tuple(kept), COSTS),
    }


def _by_block(
    problem: Problem, groups: Iterable[str], picks: Picks, columns: Sequence[str]
) -> dict[str, dict[str, int | float]]:
    place = dict(zip(problem.groups, picks, strict=True))
    return {
        block: {name: plain(sum(problem.columns[name][place[g]].item() for g in members if g in place))
                for name in columns}
        for block, members in blocks_of(list(groups)).items()
    }  # fmt: skip


def problem_of(evidence: Evidence, plan: Plan) -> Problem:
    """The problem that the plan answers, by its own weights, budgets and pins; only what a kernel runs is allowed where
    none of its layers is simulated. evidence: at the plan's confidence. Raises UserError, ProblemError."""
    budgets = [Budget(column, limit) for column, limit in plan.budgets.items()]
    problem = formulate(evidence, plan.solver.get("weights", {}), budgets, real=not plan.simulated)
    return pin(problem, plan.solver.get("pins", {}))


def picks_of(problem: Problem, evidence: Evidence, plan: Plan) -> tuple[Picks, tuple[str, ...]]:
    """The plan's choice, one flat index a group, and a sentence for each layer whose scheme is no choice there."""
    picks, wrong = [], []
    for number, (group, layers) in enumerate(groups_of(evidence).items()):
        names = problem.candidates[number]
        for layer in layers:
            scheme = plan.schemes.get(layer)
            if scheme not in names:
                wrong.append(f"{layer} takes {scheme}, and the profile offers {', '.join(names)}")
            elif scheme != plan.schemes.get(group):
                wrong.append(f"{layer} takes {scheme}, and {group}, of the same weight, {plan.schemes.get(group)}")
        scheme = plan.schemes.get(group, "")
        picks.append(int(problem.offsets[number]) + (names.index(scheme) if scheme in names else 0))
    return tuple(picks), tuple(wrong)


def check_same_model(plan: Plan, store: Profile) -> None:
    """Raises UserError where the profile is of another model, or of other layers, than the plan."""
    made_for, model = plan.model, store.header()["model"]
    if made_for["fingerprint"] != model["fingerprint"]:
        raise UserError(
            f"the plan is for {made_for['name']} with fingerprint {made_for['fingerprint'][:12]}, {store.path} is of "
            f"{model['name']} with {model['fingerprint'][:12]}; give the plan's own profile"
        )
    if odd := set(plan.schemes) ^ set(store.layers()):
        raise UserError(f"the plan and {store.path} differ in {len(odd)} layers, such as {min(odd)}; solve again")


def _solver(problem: Problem, told: Provenance) -> dict[str, Any]:
    solution, weights = told.solution, {name: float(weight) for name, weight in problem.objective.items()}
    said: dict[str, Any] = {"status": "uniform"}
    if solution is not None:
        said = {
            "status": str(solution.status),
            "objective": solution.objective,
            "bound": solution.bound,
            "gap": solution.gap,
            "backend": solution.backend,
            "stopped": solution.stopped,
        }
    said["weights"] = weights
    if solution is not None:
        prices = solution.prices or (0.0,) * len(problem.budgets)
        said["prices"] = {b.column: float(price) for b, price in zip(problem.budgets, prices, strict=True)}
    if told.worth:
        said["worth"] = dict(told.worth)
    if told.pins:
        said["pins"] = dict(told.pins)
    if told.confidence is not None:
        said["confidence"] = told.confidence
    return said


def _ranges(schemes: Mapping[str, str], seen: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What static activation formats need, for the layers that have them."""
    found = {layer: static_range(seen[layer], parse_scheme(text)) for layer, text in schemes.items()}
    return {layer: needed for layer, needed in found.items() if needed}
