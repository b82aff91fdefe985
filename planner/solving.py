"""The choosing half of the story: a profile and budgets to a plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from planner.errors import InfeasibleError, UserError
from planner.formulate import Evidence, formulate, groups_of, twins_of
from planner.graph import blocks_of, from_json
from planner.ranges import static_range
from planner.store import Profile
from planner.units import bits_to_bytes, parse_bytes, parse_milliseconds, show_bytes, show_milliseconds
from plans.plan import Plan
from plans.scheme import parse_scheme
from sensitivity.table import LossTable
from solvers.baselines import uniform
from solvers.certify import violations
from solvers.explain import explain, message
from solvers.problem import Budget, Number, Problem, pin
from solvers.solution import Choice, Solution, Status
from solvers.solve import solve

SHOW = {"bytes": show_bytes, "ms": show_milliseconds}


@dataclass(frozen=True)
class Request:
    """What is asked of `solve`; the words are those of `planner.workflow.solve`."""

    memory: str | None
    latency: str | None
    bits: float | None
    caps: Mapping[str, str]
    objective: Mapping[str, float]
    uniform: str | None
    pins: Mapping[str, str]
    real: bool
    time_limit: float
    solver: str | None


def read_evidence(store: Profile) -> Evidence:
    """The choices and their numbers. Raises UserError when the profile is not finished."""
    costs, graph = store.costs(), from_json(store.graph())
    offered: dict[str, tuple[str, ...]] = {}
    for cost in costs:
        offered[cost.layer] = (*offered.get(cost.layer, ()), cost.scheme)
    wanted = {(cost.layer, cost.scheme) for cost in costs if cost.scheme != "keep"}
    missing = len(wanted - store.measured())
    if missing or set(offered) != set(store.layers()):
        raise UserError(f"{store.path}: {missing or 'all'} of {len(wanted)} measurements are missing; "
                        "run the same `bitplan profile` command again to finish it")  # fmt: skip
    return Evidence(
        offered=offered,
        size={(c.layer, c.scheme): c.bytes for c in costs},
        ms={(c.layer, c.scheme): c.ms or 0.0 for c in costs},
        losses=LossTable.of(store.measurements()),
        metrics=store.families(),
        shared=graph.shared_inputs,
        tied=graph.tied,
        simulated=frozenset((c.layer, c.scheme) for c in costs if c.simulated),
        weights=sum(prod(layer.weight) for layer in graph.layers if layer.address not in twins_of(graph.tied)),
    )


def whole(evidence: Evidence) -> dict[str, float]:
    """Bytes and milliseconds of all planned layers in full precision: what per cent are of."""
    problem = formulate(evidence, {}, (), real=False)
    first = problem.offsets[:-1]  # `keep` is the first candidate of every group
    return {name: problem.column(name)[first].sum().item() for name in ("bytes", "ms")}


def make_plan(store: Profile, request: Request) -> Plan:
    """The best plan within the request's budgets. Raises InfeasibleError saying what could be reached, UserError."""
    evidence = read_evidence(store)
    budgets = budgets_of(evidence, request)
    _check_pins(evidence, request)
    problem = pin(formulate(evidence, request.objective, budgets, request.real), request.pins)
    chosen: Choice | None
    if request.uniform:
        chosen, told = _uniform(problem, request.uniform, request.pins), {"status": "uniform"}
    else:
        solution = solve(problem, time_limit=request.time_limit, backend=request.solver)
        if solution.status is Status.INFEASIBLE:
            raise InfeasibleError(f"no plan fits: {message(explain(problem), SHOW)}; raise the budget or allow more")
        if solution.status is Status.INTERRUPTED:
            raise UserError(f"no plan found in {request.time_limit:g} s ({solution.stopped}); raise --time-limit")
        chosen, told = solution.choice, _told(solution)
    assert chosen is not None
    if broken := violations(problem, chosen.picks):
        raise InfeasibleError(f"the uniform plan {request.uniform} is outside: {broken[0].sentence}")
    return _plan(store, evidence, (problem, chosen), told)


def budgets_of(evidence: Evidence, request: Request) -> tuple[Budget, ...]:
    """Each bound asked for. Raises UserError."""
    full = whole(evidence)
    found = []
    if request.memory is not None:
        found.append(Budget("bytes", parse_bytes(request.memory, int(full["bytes"]))))
    if request.bits is not None:
        found.append(Budget("bytes", bits_to_bytes(request.bits, evidence.weights)))
    if request.latency is not None:
        found.append(Budget("ms", parse_milliseconds(request.latency, full["ms"])))
    return (*found, *(Budget(column, _cap(evidence, column, value)) for column, value in request.caps.items()))


def _cap(evidence: Evidence, column: str, value: str) -> float:
    """A number, or the sum of the column under the uniform plan of a scheme."""
    try:
        return float(value)
    except ValueError:
        problem = formulate(evidence, {}, (), real=False)
        problem.column(column)
        return float(_uniform(problem, value, {}).totals[column])


def _uniform(problem: Problem, text: str, pins: Mapping[str, str]) -> Choice:
    """One scheme wherever it may be taken, pins apart, and `keep` elsewhere. Raises UserError where it is nowhere."""
    scheme = str(parse_scheme(text))
    chosen = uniform(problem, scheme, ("keep", *pins.values()))
    if scheme not in chosen.names.values():
        offered = dict.fromkeys(name for names in problem.candidates for name in names)
        raise UserError(f"no layer may take {scheme}; the profile holds {', '.join(offered)}; measure it with "
                        "--schemes, or, where no kernel runs it, simulate with --kernels fake")  # fmt: skip
    return chosen


def _check_pins(evidence: Evidence, request: Request) -> None:
    """A pin overrides what the solver may choose, so what no kernel runs is refused here. Raises UserError."""
    for pair in request.pins.items():
        if request.real and pair in evidence.simulated:
            raise UserError(f"no kernel runs {pair[1]} in {pair[0]}; pin another scheme, or take --kernels fake")


def _told(solution: Solution) -> dict[str, Any]:
    return {
        "status": str(solution.status),
        "objective": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap,
        "backend": solution.backend,
        "stopped": solution.stopped,
    }


def _plan(store: Profile, evidence: Evidence, answer: tuple[Problem, Choice], told: dict[str, Any]) -> Plan:
    problem, chosen = answer
    header = store.header()
    groups = groups_of(evidence)
    scheme_of = {layer: chosen.names[group] for group, layers in groups.items() for layer in layers}
    schemes = {layer: scheme_of[layer] for layer in store.layers()}
    model, settings = header["model"], header["settings"]
    return Plan(
        model={key: model[key] for key in ("name", "fingerprint", "architecture", "components")},
        schemes=schemes,
        simulated=tuple(layer for layer, scheme in schemes.items() if (layer, scheme) in evidence.simulated),
        calibration={
            "prompts": len(settings["prompts"]),
            "prompts_sha256": hashlib.sha256("\n".join(settings["prompts"]).encode()).hexdigest(),
            **settings["generation"],
            "ranges": _ranges(schemes, store.ranges()),
        },
        budgets=_tightest(problem.budgets),
        predictions=predict(problem, chosen, groups),
        solver=told | {"weights": {name: float(weight) for name, weight in problem.objective.items()}},
    )


def predict(problem: Problem, chosen: Choice, groups: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The sums of every column, in all and by block of layers."""
    place = dict(zip(problem.groups, chosen.picks, strict=True))
    blocks = {
        block: {name: _plain(sum(values[place[g]].item() for g in members if g in place))
                for name, values in problem.columns.items()}
        for block, members in blocks_of(list(groups)).items()
    }  # fmt: skip
    return {"total": {name: _plain(total) for name, total in chosen.totals.items()}, "blocks": blocks}


def _tightest(budgets: Sequence[Budget]) -> dict[str, int | float]:
    """Column -> the limit that counts, where `--memory` and `--bits` bound the same."""
    limits = {budget.column: [other.limit for other in budgets if other.column == budget.column] for budget in budgets}
    return {column: _plain(min(found)) for column, found in limits.items()}


def _ranges(schemes: Mapping[str, str], seen: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What static activation formats need, for the layers that have them."""
    found = {layer: static_range(seen[layer], parse_scheme(text).activation) for layer, text in schemes.items()}
    return {layer: needed for layer, needed in found.items() if needed}


def _plain(number: Number) -> int | float:
    return number if isinstance(number, int) else float(number)
