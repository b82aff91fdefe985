"""Converts a solution to a plan, and a plan to the problem that it solves. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bitplan.planner.choice.evidence import KEEP, Evidence, groups_of, read_evidence
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

MODEL = ("name", "dtype", "variant", "fingerprint", "architecture", "components")  # what plans say of their model
STEPS = {"bytes": 2**20, "ms": 1.0}  # steps of the marginal values: a MiB, a millisecond


@dataclass(frozen=True)
class Provenance:
    """How a plan was found.

    Attributes:
        solution: None for a uniform plan.
        pins: layer -> scheme.
        confidence: of the losses' upper bounds; None for mean losses.
        worth: column -> the saving of one more step of its budget.
    """

    solution: Solution | None
    pins: Mapping[str, str] = field(default_factory=dict)
    confidence: float | None = None
    worth: Mapping[str, float] = field(default_factory=dict)


def plan_of(store: Profile, evidence: Evidence, answer: tuple[Problem, Choice], provenance: Provenance) -> Plan:
    """Return the plan of a choice, given as problem and choice. Each column has at most one budget."""
    problem, chosen = answer
    header = store.header()
    groups = groups_of(evidence)
    scheme_of = {layer: chosen.names[group] for group, layers in groups.items() for layer in layers}
    schemes = {layer: scheme_of[layer] for layer in store.layers()}
    model, settings = header["model"], header["settings"]
    return Plan(
        model={key: model[key] for key in MODEL if key in model},
        schemes=schemes,
        simulated=tuple(layer for layer, scheme in schemes.items() if (layer, scheme) in evidence.simulated),
        calibration={
            "prompts": len(settings["prompts"]),
            "prompts_sha256": hashlib.sha256("\n".join(map(_line, settings["prompts"])).encode()).hexdigest(),
            **{
                key: value
                for key, value in settings.get("generation", {}).items()
                if key != "steps" or value is not None
            },
            **({"metrics": list(settings["metrics"])} if settings.get("metrics") else {}),
            "ranges": _ranges(schemes, store.ranges()),
        },
        budgets={budget.column: plain(budget.limit) for budget in problem.budgets},
        predictions=predict(evidence, chosen.picks),
        solver=_solver(problem, provenance) | ({"target": evidence.target} if evidence.target else {}),
        **shared_parameters(store, schemes, evidence.shared),
    )


def _line(condition: Any) -> str:
    return condition if isinstance(condition, str) else json.dumps(condition, sort_keys=True)


def predict(evidence: Evidence, picks: Picks) -> dict[str, Any]:
    """Return the sums of every column at mean losses, in total and by block of layers; by block also the costs of the
    model in full precision. picks: one flat index for each group."""
    problem, groups = formulate(replace(evidence, z=0.0), {}, (), real=False), groups_of(evidence)
    keeps = [int(start) + names.index(KEEP) for start, names in zip(problem.offsets, problem.candidates, strict=False)]
    return {
        "total": dict(choice_of(problem, picks).totals),
        "blocks": _by_block(problem, groups, picks, tuple(problem.columns)),
        "full": _by_block(problem, groups, tuple(keeps), COSTS),
    }


def full_costs(plan: Plan) -> dict[str, float]:
    """Return bytes and milliseconds of the planned layers in full precision, as far as the plan holds them."""
    blocks = plan.predictions.get("full", {}).values()
    known = [name for name in COSTS if blocks and all(name in sums for sums in blocks)]
    return {name: sum(sums[name] for sums in blocks) for name in known}


def _by_block(
    problem: Problem, groups: Iterable[str], picks: Picks, columns: Sequence[str]
) -> dict[str, dict[str, int | float]]:
    place = dict(zip(problem.groups, picks, strict=True))
    return {
        block: {name: plain(sum(problem.columns[name][place[g]].item() for g in members if g in place))
                for name in columns}
        for block, members in blocks_of(list(groups)).items()
    }  # fmt: skip


def evidence_of(plan: Plan, store: Profile) -> Evidence:
    """Return the evidence that the plan rests on: at its confidence, and for its target. Raises UserError."""
    return read_evidence(store, plan.solver.get("confidence"), plan.solver.get("target"))


def problem_of(evidence: Evidence, plan: Plan) -> Problem:
    """Return the problem that the plan solves, from its weights, budgets and pins.

    Only schemes that a kernel runs are allowed if no layer of the plan is simulated. evidence: of `evidence_of`.
    Raises UserError, ProblemError.
    """
    budgets = [Budget(column, limit) for column, limit in plan.budgets.items()]
    problem = formulate(evidence, plan.solver.get("weights", {}), budgets, real=not plan.simulated)
    return pin(problem, plan.solver.get("pins", {}))


def picks_of(problem: Problem, evidence: Evidence, plan: Plan) -> tuple[Picks, tuple[str, ...]]:
    """Return the plan's choice, one flat index for each group, and a sentence for each layer with an invalid scheme."""
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
    """Raise UserError if the profile is of another model, or has other layers, than the plan."""
    own, model = plan.model, store.header()["model"]
    if own["fingerprint"] != model["fingerprint"]:
        raise UserError(
            f"the plan is for {own['name']} with fingerprint {own['fingerprint'][:12]}, {store.path} is of "
            f"{model['name']} with {model['fingerprint'][:12]}; give the plan's own profile"
        )
    if different := set(plan.schemes) ^ set(store.layers()):
        raise UserError(
            f"the plan and {store.path} differ in {len(different)} layers, such as {min(different)}; solve again"
        )


def _solver(problem: Problem, provenance: Provenance) -> dict[str, Any]:
    solution, weights = provenance.solution, {name: float(weight) for name, weight in problem.objective.items()}
    record: dict[str, Any] = {"status": "uniform"}
    if solution is not None:
        record = {
            "status": str(solution.status),
            "objective": solution.objective,
            "bound": solution.bound,
            "gap": solution.gap,
            "backend": solution.backend,
            "stopped": solution.stopped,
        }
    record["weights"] = weights
    if solution is not None:
        prices = solution.prices or (0.0,) * len(problem.budgets)
        record["prices"] = {b.column: float(price) for b, price in zip(problem.budgets, prices, strict=True)}
    if provenance.worth:
        record["worth"] = dict(provenance.worth)
    if provenance.pins:
        record["pins"] = dict(provenance.pins)
    if provenance.confidence is not None:
        record["confidence"] = provenance.confidence
    return record


def _ranges(schemes: Mapping[str, str], ranges: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the ranges of the layers with static activation formats."""
    parsed = {layer: parse_scheme(text) for layer, text in schemes.items()}
    if missing := [layer for layer, scheme in parsed.items() if scheme.inputs.static and layer not in ranges]:
        raise UserError(f"the profile has no range of the input of {missing[0]}, which {schemes[missing[0]]} needs; "
                        "profile the model again")  # fmt: skip
    static = {layer: static_range(ranges.get(layer, {}), scheme) for layer, scheme in parsed.items()}
    return {layer: values for layer, values in static.items() if values}
