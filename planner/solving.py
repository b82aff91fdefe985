"""The choosing half of the story: a profile and a request to plans. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

import numpy as np

from planner.errors import InfeasibleError, UserError
from planner.formulate import KEEP, Evidence, check_known, formulate, groups_of, order_of, twins_of, weights_of, z_of
from planner.graph import from_json
from planner.recording import STEPS, Told, plain, plan_of
from planner.rules import resolve
from planner.store import Profile
from planner.units import bits_to_bytes, parse_bytes, parse_milliseconds, show_bytes, show_milliseconds
from plans.plan import Plan
from plans.scheme import parse_scheme
from sensitivity.table import LossTable
from solvers.baselines import uniform
from solvers.certify import exact_total, violations
from solvers.explain import explain, message
from solvers.kbest import best
from solvers.lexicographic import lexicographic
from solvers.problem import Budget, Number, Problem, pin
from solvers.solution import PROVEN, Choice, Solution, Status, choice_of, relative_gap
from solvers.strategies import STRATEGIES, Effort, strategy_named
from solvers.worth import worth

LONGEST = 20.0  # seconds to find out by how much budgets are too tight together
SHOW = {"bytes": show_bytes, "ms": show_milliseconds}


@dataclass(frozen=True)
class Request:
    """What is asked of `solve`; the words are those of `planner.workflow.solve`. objective: column -> weight; order: of
    a lexicographic objective, else empty; pins: layer or `role:NAME` -> scheme; real: only what a kernel runs."""

    objective: Mapping[str, float]
    order: tuple[str, ...] = ()
    memory: str | None = None
    latency: str | None = None
    bits: float | None = None
    caps: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    real: bool = True
    confidence: float | None = None
    slack: float = 0.0


def request_of(
    objective: str, memory: str | None, latency: str | None, bits: float | None, caps: Mapping[str, str] | None,
    pins: Mapping[str, str] | None, real: bool, confidence: float | None, slack: float,
) -> Request:  # fmt: skip
    """The request in the words of the verbs. Raises UserError."""
    weights, order = weights_of(objective), order_of(objective)
    return Request(weights, order, memory, latency, bits, dict(caps or {}), dict(pins or {}), real, confidence, slack)


@dataclass(frozen=True)
class Search:
    """How `solve` looks for it. solver: a name of STRATEGIES; candidates: how many plans, which differ in at least
    `distance` groups; worth: whether to find out what more of each budget would save."""

    effort: Effort = Effort()
    solver: str = STRATEGIES[0].name
    candidates: int = 1
    distance: int = 1
    worth: bool = False


def read_evidence(store: Profile, confidence: float | None = None) -> Evidence:
    """The choices and their numbers. Raises UserError when the profile is not finished, or for a confidence that is
    none."""
    costs, graph = store.costs(), from_json(store.graph())
    offered: dict[str, tuple[str, ...]] = {}
    for cost in costs:
        offered[cost.layer] = (*offered.get(cost.layer, ()), cost.scheme)
    wanted = {(cost.layer, cost.scheme) for cost in costs if cost.scheme != KEEP}
    missing = len(wanted - store.measured())
    if missing or set(offered) != set(store.layers()):
        raise UserError(f"{store.path}: {missing or 'all'} of {len(wanted)} measurements are missing; "
                        "run the same `bitplan profile` command again to finish it")  # fmt: skip
    table, families = LossTable.of(store.measurements()), store.families()
    partly = _partly(table, families, wanted)
    return Evidence(
        offered=offered,
        size={(c.layer, c.scheme): c.bytes for c in costs},
        ms={(c.layer, c.scheme): c.ms or 0.0 for c in costs},
        losses=table,
        metrics={metric: family for metric, family in families.items() if metric not in partly},
        shared=graph.shared_inputs,
        tied=graph.tied,
        simulated=frozenset((c.layer, c.scheme) for c in costs if c.simulated),
        weights=sum(prod(layer.weight) for layer in graph.layers if layer.address not in twins_of(graph.tied)),
        z=z_of(confidence),
        roles={layer.address: layer.role for layer in graph.layers},
        partly=partly,
    )


def _partly(table: LossTable, families: Mapping[str, str], wanted: set[tuple[str, str]]) -> dict[str, int]:
    """Metrics that were measured for some of the pairs alone: beside probes, one that has none."""
    counts = Counter(key[2] for key in table.measurements if key[:2] in wanted)
    return {metric: counts[metric] for metric in families if counts[metric] < len(wanted)}


def whole(evidence: Evidence) -> dict[str, float]:
    """Bytes and milliseconds of all planned layers in full precision: what per cent are of."""
    groups = groups_of(evidence).values()
    size = sum(evidence.size[layers[0], KEEP] for layers in groups)  # a shared float weight is held once
    ms = np.array([sum(evidence.ms[layer, KEEP] for layer in layers) for layers in groups]).sum().item()
    return {"bytes": size, "ms": ms}


def make_plans(store: Profile, request: Request, search: Search, uniform: str | None = None) -> list[Plan]:
    """Plans within the request's budgets, the best first: one, or as many of `search.candidates` as there are.

    uniform: take this scheme everywhere instead. Raises InfeasibleError saying what could be reached, UserError.
    """
    if uniform:
        return [make_uniform(store, request, uniform)]
    evidence = read_evidence(store, request.confidence)
    request = settled(evidence, request)
    problem = pose(evidence, request, search.effort)
    solutions = _solutions(problem, search)
    first = solutions[0]
    bought = {}
    if search.worth:
        options = {"time_limit": search.effort.time_limit, "gap": search.effort.gap, "backend": search.effort.backend}
        found = worth(problem, first, STEPS, **options)  # type: ignore[arg-type]
        bought = {each.column: each.saved for each in found if each.saved is not None}
    told = Told(first, request.pins, request.confidence)
    plans = []
    for solution in solutions:
        assert solution.choice is not None
        mine = replace(told, solution=solution, worth=bought if solution is first else {})
        plans.append(plan_of(store, evidence, (problem, solution.choice), mine))
    return plans


def make_uniform(store: Profile, request: Request, scheme: str) -> Plan:
    """The plan that takes one scheme wherever it is offered, pins apart. Raises InfeasibleError where the request's
    budgets are broken, UserError."""
    evidence = read_evidence(store, request.confidence)
    request = settled(evidence, request)
    problem = pose(evidence, request, Effort())
    chosen = _uniform(problem, scheme, request.pins)
    if broken := violations(problem, chosen.picks):
        raise InfeasibleError(f"the uniform plan {scheme} is outside: {broken[0].sentence}")
    return plan_of(store, evidence, (problem, chosen), Told(None, request.pins, request.confidence))


def settled(evidence: Evidence, request: Request) -> Request:
    """The request with each pin on a layer: those on a role are on all its layers. Raises UserError."""
    return replace(request, pins=resolve(request.pins, evidence.roles, groups_of(evidence)))


def pose(evidence: Evidence, request: Request, effort: Effort) -> Problem:
    """The problem that the request asks, each column with one budget at most. Raises UserError, InfeasibleError."""
    check_known(evidence, (*request.objective, *request.order, *request.caps))
    budgets = budgets_of(evidence, request)
    check_pins(evidence, request)
    problem = pin(formulate(evidence, request.objective, budgets, request.real), request.pins)
    if not 0 <= request.slack < float("inf"):
        raise UserError(f"--slack {request.slack:g} is no share; give a finite number of at least 0, such as 0.05")
    return _held(problem, request, effort) if request.order else problem


def _held(problem: Problem, request: Request, effort: Effort) -> Problem:
    """All but the last column of a lexicographic order as budgets of what they can get to, one after the other."""
    *firsts, last = request.order
    for column in request.order:
        problem.column(column)
    stages = lexicographic(problem, firsts, slack=request.slack, time_limit=effort.time_limit, gap=effort.gap,
                           backend=effort.backend) if firsts else ()  # fmt: skip
    budgets = list(problem.budgets)
    for column, solution in zip(firsts, stages, strict=False):
        check_solved(problem, solution, effort)
        reached = exact_total(problem, column, solution.picks) * (1 + Fraction(request.slack))
        budgets.append(Budget(column, plain(reached)))
    return replace(problem, objective={last: 1.0}, budgets=_tightest(budgets))


def _solutions(problem: Problem, search: Search) -> list[Solution]:
    """Solutions with a choice, the best first. Raises InfeasibleError, UserError."""
    strategy, effort = strategy_named(search.solver), search.effort
    if search.candidates == 1:
        solution = strategy.run(problem, effort)
        check_solved(problem, solution, effort)
        return [solution]
    if strategy is not STRATEGIES[0]:
        raise UserError(f"--candidates needs --solver {STRATEGIES[0].name}, not {strategy.name}; leave one of them out")
    found = list(best(problem, search.candidates, distance=search.distance, time_limit=effort.time_limit,
                      gap=effort.gap, backend=effort.backend))  # fmt: skip
    first, *others = found
    check_solved(problem, first, effort)
    return [first, *(_candidate(problem, first, other, effort) for other in others if other.choice is not None)]


def _candidate(problem: Problem, first: Solution, other: Solution, effort: Effort) -> Solution:
    """A further candidate as an answer to the problem itself, without the cuts that led to it."""
    choice = choice_of(problem, other.picks)
    bound = min(first.bound, choice.objective)
    proven = relative_gap(choice.objective, bound) <= PROVEN
    status = Status.OPTIMAL if proven else Status.FEASIBLE
    stopped = f"the best that differs enough from the candidates before it: {other.stopped}"
    return Solution(status, choice, bound, stopped, other.seconds, other.backend, first.prices)


def check_solved(problem: Problem, solution: Solution, effort: Effort) -> None:
    """Raises InfeasibleError or UserError where there is no choice, saying why."""
    if solution.status is Status.INFEASIBLE:
        told = message(explain(problem, time_limit=min(effort.time_limit, LONGEST)), SHOW)
        raise InfeasibleError(f"no plan fits: {told}; raise the budget or allow more")
    if solution.status is Status.INTERRUPTED:
        raise UserError(f"no plan found in {effort.time_limit:g} s ({solution.stopped}); raise --time-limit, or take "
                        f"--solver {STRATEGIES[0].name}")  # fmt: skip


def budgets_of(evidence: Evidence, request: Request) -> tuple[Budget, ...]:
    """The bounds asked for, the tightest of each column. Raises UserError."""
    full = whole(evidence)
    found = []
    if request.memory is not None:
        found.append(Budget("bytes", parse_bytes(request.memory, int(full["bytes"]))))
    if request.bits is not None:
        found.append(Budget("bytes", bits_to_bytes(request.bits, evidence.weights)))
    if request.latency is not None:
        found.append(Budget("ms", parse_milliseconds(request.latency, full["ms"])))
    found += [Budget(column, _cap(evidence, column, value)) for column, value in request.caps.items()]
    return _tightest(found)


def amount_of(evidence: Evidence, column: str, text: str) -> Number:
    """A limit on a column as people write it: bytes, milliseconds, or a loss by a number or a scheme. Raises
    UserError."""
    if column == "bytes":
        return parse_bytes(text, int(whole(evidence)["bytes"]))
    if column == "ms":
        return parse_milliseconds(text, whole(evidence)["ms"])
    return _cap(evidence, column, text)


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


def check_pins(evidence: Evidence, request: Request) -> None:
    """A pin overrides what the solver may choose, so what no kernel runs is refused here. Raises UserError."""
    for pair in request.pins.items():
        if request.real and pair in evidence.simulated:
            raise UserError(f"no kernel runs {pair[1]} in {pair[0]}; pin another scheme, or take --kernels fake")


def _tightest(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """One budget a column: the limit that counts, where `--memory` and `--bits` bound the same."""
    columns = dict.fromkeys(budget.column for budget in budgets)
    return tuple(min((b for b in budgets if b.column == column), key=lambda b: b.limit) for column in columns)
