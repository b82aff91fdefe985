"""Makes plans from a profile and a request. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bitplan.planner.choice.evidence import Evidence, read_evidence
from bitplan.planner.choice.limits import check_solved, check_uniform, pose, settled, tell_unquantized, uniform_choice
from bitplan.planner.choice.record import STEPS, Provenance, picks_of, plan_of
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
    """How to search.

    Attributes:
        effort: the limits of each solve.
        solver: a name in STRATEGIES.
        candidates: the number of plans.
        distance: the least number of groups in which any two of them differ.
        worth: whether to compute the marginal value of each budget.
    """

    effort: Effort = Effort()
    solver: str = STRATEGIES[0].name
    candidates: int = 1
    distance: int = 1
    worth: bool = False


def make_plans(store: Profile, request: Request, search: Search, uniform: str | None = None) -> list[Plan]:
    """Return plans within the budgets of the request, the best first: up to `search.candidates` of them.

    uniform: take this scheme everywhere instead. Raises InfeasibleError with what is possible, and UserError.
    """
    if uniform:
        return [make_uniform(store, request, uniform)]
    return list(find_plans(store, request, search))


def find_plans(store: Profile, request: Request, search: Search, known: Sequence[Plan] = ()) -> Iterator[Plan]:
    """Yield the plans of `make_plans` as they are found. known: the first of them, which an earlier search found."""
    evidence = read_evidence(store, request.confidence, request.target)
    request = settled(evidence, request)
    problem = pose(evidence, request, search.effort)
    found = [_solution_in(problem, evidence, plan) for plan in known]
    yield from known
    for number, solution in enumerate(_solutions(problem, search, found, evidence.roles)):
        savings = {}
        if search.worth and not number and not known:
            values = marginal_values(problem, solution, STEPS, search.effort)
            savings = {each.column: each.saved for each in values if each.saved is not None}
        assert solution.choice is not None
        provenance = Provenance(solution, request.pins, request.confidence, savings)
        plan = plan_of(store, evidence, (problem, solution.choice), provenance)
        if not number:
            tell_unquantized(evidence, request, plan.schemes.values())
        yield plan


def _solution_in(problem: Problem, evidence: Evidence, plan: Plan) -> Solution:
    """Return the solution that a plan records. Raises UserError for a plan of another profile."""
    picks, wrong = picks_of(problem, evidence, plan)
    if wrong or violations(problem, picks):
        raise UserError(f"a plan of an interrupted search does not fit: {(*wrong, 'it exceeds a budget')[0]}; delete "
                        "its .candidates.json, or choose another --out")  # fmt: skip
    record, choice = plan.solver, choice_of(problem, picks)
    prices = tuple(record["prices"][budget.column] for budget in problem.budgets)
    status = Status[str(record["status"]).upper()]
    return Solution(status, choice, record["bound"], record["stopped"], 0.0, record["backend"], prices)


def make_uniform(store: Profile, request: Request, scheme: str) -> Plan:
    """Return the plan with one scheme wherever it is offered, and the pins. Raises InfeasibleError if it exceeds a
    budget, and UserError."""
    evidence = read_evidence(store, request.confidence, request.target)
    request = settled(evidence, request)
    check_uniform(evidence, scheme)
    problem = pose(evidence, request, Effort())
    choice = uniform_choice(problem, scheme, request.pins)
    if broken := violations(problem, choice.picks):
        raise InfeasibleError(f"the uniform plan {scheme} exceeds a budget: {broken[0].sentence}")
    return plan_of(store, evidence, (problem, choice), Provenance(None, request.pins, request.confidence))


def _solutions(
    problem: Problem, search: Search, known: Sequence[Solution], roles: Mapping[str, str]
) -> Iterator[Solution]:
    """Yield solutions with a choice, the best first, after the known ones. Raises InfeasibleError, UserError."""
    strategy, effort = strategy_named(search.solver), search.effort
    if search.candidates == 1:
        solution = strategy.run(problem, effort)
        check_solved(problem, solution, effort, roles)
        yield solution
        return
    if strategy is not STRATEGIES[0]:
        raise UserError(f"--candidates needs --solver {STRATEGIES[0].name}, not {strategy.name}; leave one of them out")
    first, choices = next(iter(known), None), [each.choice for each in known if each.choice is not None]
    for solution in k_best(problem, search.candidates, effort, distance=search.distance, known=choices):
        if first is None:
            check_solved(problem, solution, effort, roles)
            first = solution
            yield solution
        elif solution.choice is not None:
            yield _candidate(problem, first, solution, effort)


def _candidate(problem: Problem, first: Solution, other: Solution, effort: Effort) -> Solution:
    """Return a further candidate as a solution of the problem without the cuts that led to it."""
    choice = choice_of(problem, other.picks)
    bound = min(first.bound, choice.objective)
    proven = relative_gap(choice.objective, bound) <= PROVEN
    status = Status.OPTIMAL if proven else Status.FEASIBLE
    stopped = f"the best that differs enough from the previous candidates: {other.stopped}"
    return Solution(status, choice, bound, stopped, other.seconds, other.backend, first.prices)
