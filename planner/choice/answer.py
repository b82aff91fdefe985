"""The choosing half of the story: a profile and a request to plans. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.choice.limits import _uniform, check_solved, pose, settled
from bitplan.planner.choice.record import STEPS, Provenance, plan_of
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import InfeasibleError, UserError
from bitplan.planner.profiles.profile import Profile
from bitplan.plans.plan import Plan
from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.questions.kbest import k_best
from bitplan.solvers.questions.marginal import marginal_values
from bitplan.solvers.solution import PROVEN, Solution, Status, choice_of, relative_gap
from bitplan.solvers.strategies import STRATEGIES, strategy_named


@dataclass(frozen=True)
class Search:
    """How `solve` looks for it. solver: a name of STRATEGIES; candidates: how many plans, which differ in at least
    `distance` groups; worth: whether to find out what more of each budget would save."""

    effort: Effort = Effort()
    solver: str = STRATEGIES[0].name
    candidates: int = 1
    distance: int = 1
    worth: bool = False


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
        found = marginal_values(problem, first, STEPS, search.effort)
        bought = {each.column: each.saved for each in found if each.saved is not None}
    told = Provenance(first, request.pins, request.confidence)
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
    return plan_of(store, evidence, (problem, chosen), Provenance(None, request.pins, request.confidence))


def _solutions(problem: Problem, search: Search) -> list[Solution]:
    """Solutions with a choice, the best first. Raises InfeasibleError, UserError."""
    strategy, effort = strategy_named(search.solver), search.effort
    if search.candidates == 1:
        solution = strategy.run(problem, effort)
        check_solved(problem, solution, effort)
        return [solution]
    if strategy is not STRATEGIES[0]:
        raise UserError(f"--candidates needs --solver {STRATEGIES[0].name}, not {strategy.name}; leave one of them out")
    found = list(k_best(problem, search.candidates, effort, distance=search.distance))
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
