"""Turns a request into a problem with budgets, caps and pins, and explains why a problem has no solution."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from bitplan.planner.choice.columns import check_known
from bitplan.planner.choice.evidence import KEEP, Evidence, groups_of, measured, whole
from bitplan.planner.choice.problem import formulate, in_one_unit
from bitplan.planner.choice.request import Request, resolve, resolved_names
from bitplan.planner.choice.shortfall import shortfall
from bitplan.planner.errors import InfeasibleError, UserError
from bitplan.planner.graph.naming import tell_counts
from bitplan.planner.progress import tell
from bitplan.planner.texts import nearest_or_all
from bitplan.planner.units import SHOW, bits_to_bytes, parse_bytes, parse_milliseconds, parse_number
from bitplan.plans.scheme import parse_scheme, weights_alone
from bitplan.solvers.certify import exact_total
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Number, Problem, pin, plain
from bitplan.solvers.questions.lexicographic import lexicographic
from bitplan.solvers.solution import Choice, Solution, Status, uniform
from bitplan.solvers.strategies import STRATEGIES

LONGEST = 20.0  # seconds to compute by how much budgets are too tight together


def settled(evidence: Evidence, request: Request) -> Request:
    """As `on_groups`, and say on standard error for how many layers each name of several stands, and how much of the
    profile a target can load."""
    tell_counts(resolved_names(request.pins, evidence.roles, groups_of(evidence)))
    if evidence.ruled_out:
        pairs = sum(scheme != KEEP for _, scheme in evidence.size)
        print(f"{evidence.target} can load {pairs - len(evidence.ruled_out)} of {pairs} (layer, scheme) of the "
              f"profile; `bitplan profile --target {evidence.target}` measures what it can load",
              file=sys.stderr)  # fmt: skip
    return on_groups(evidence, request)


def on_groups(evidence: Evidence, request: Request) -> Request:
    """Return the request with pins on groups only: a pin on several layers becomes a pin on each group of them.

    Raises UserError.
    """
    return replace(request, pins=resolve(request.pins, evidence.roles, groups_of(evidence)))


def pose(evidence: Evidence, request: Request, effort: Effort) -> Problem:
    """Return the problem of the request, with at most one budget on a column. Raises UserError, InfeasibleError."""
    check_known(evidence, (*request.order, *request.caps), request.weights)
    budgets = budgets_of(evidence, request)
    check_pins(evidence, request)
    problem = pin(formulate(evidence, in_one_unit(evidence, request.weights), budgets, request.real), request.pins)
    if not 0 <= request.slack < float("inf"):
        raise UserError(f"--slack {request.slack:g} is not a share; give a finite number of at least 0, such as 0.05")
    return _with_stages(problem, request, effort, evidence.roles) if request.order else problem


def _with_stages(problem: Problem, request: Request, effort: Effort, roles: Mapping[str, str]) -> Problem:
    """Solve for all but the last column of a lexicographic order, and limit each to its least sum and the slack."""
    *firsts, last = request.order
    for column in request.order:
        problem.column(column)
    stages = lexicographic(problem, firsts, effort, slack=request.slack) if firsts else ()
    budgets = list(problem.budgets)
    for column, solution in zip(firsts, stages, strict=False):
        check_solved(problem, solution, effort, roles)
        limit = exact_total(problem, column, solution.picks) * (1 + Fraction(request.slack))
        budgets.append(Budget(column, plain(limit)))
    return replace(problem, objective={last: 1.0}, budgets=_tightest(budgets))


def check_solved(problem: Problem, solution: Solution, effort: Effort, roles: Mapping[str, str] | None = None) -> None:
    """Raise InfeasibleError or UserError with the reason if there is no choice.

    roles: layer -> role, by which the reason sums the layers up; None for none.
    """
    if solution.status is Status.INFEASIBLE:
        patience = Effort(min(effort.time_limit, LONGEST), stopped=effort.stopped)
        raise InfeasibleError(f"no plan fits: {shortfall(problem, patience, roles or {})}")
    if solution.status is Status.INTERRUPTED:
        raise UserError(f"no plan found in {effort.time_limit:g} s ({solution.stopped}); raise --time-limit, or take "
                        f"`bitplan solve --solver {STRATEGIES[0].name}`")  # fmt: skip


def budgets_of(evidence: Evidence, request: Request) -> tuple[Budget, ...]:
    """Return the budgets of the request, the tightest of each column. Raises UserError."""
    full = whole(evidence)
    budgets = []
    if request.memory is not None:
        budgets.append(Budget("bytes", parse_bytes(request.memory, int(full["bytes"]))))
    if request.bits is not None:
        budgets.append(Budget("bytes", bits_to_bytes(request.bits, evidence.weights)))
    if request.latency is not None:
        budgets.append(Budget("ms", parse_milliseconds(request.latency, full["ms"])))
    budgets += [Budget(column, _cap(evidence, column, value)) for column, value in request.caps.items()]
    return _tightest(budgets)


def tell_unquantized(evidence: Evidence, request: Request, schemes: Iterable[str]) -> None:
    """Say on standard error why a plan with these schemes quantizes nothing, if it does."""
    if set(schemes) != {KEEP}:
        return
    full, above = whole(evidence), []
    for budget in budgets_of(evidence, replace(request, caps={})):
        show, whole_sum = SHOW[budget.column], full[budget.column]
        relation = "above" if budget.limit > whole_sum else "no less than"
        above.append(
            f"the budget of {show(float(budget.limit))} is {relation} full precision's {show(whole_sum)} of planned "
            "layers"
        )
    reason = "; ".join(above) or "no budget on memory, latency or bits is given, and full precision has no losses"
    tell(f"{reason}: nothing is quantized; give a smaller one, such as --memory 25%")


def amount_of(evidence: Evidence, column: str, text: str) -> Number:
    """Parse a limit on a column: bytes, milliseconds, or a loss as a number or a scheme. Raises UserError."""
    if column == "bytes":
        return parse_bytes(text, int(whole(evidence)["bytes"]))
    if column == "ms":
        return parse_milliseconds(text, whole(evidence)["ms"])
    return _cap(evidence, column, text)


def _cap(evidence: Evidence, column: str, value: str) -> float:
    """Parse a number, or return the sum of the column in the uniform plan of a scheme."""
    number = parse_number(value, f"the cap on {column} of")
    if number is not None:
        return number
    problem = formulate(measured(evidence), {}, (), real=False)
    problem.column(column)
    return float(uniform_choice(problem, value, {}).totals[column])


def uniform_choice(problem: Problem, text: str, pins: Mapping[str, str]) -> Choice:
    """Return the choice of one scheme where it is allowed, and its weights alone, `keep` or a pin elsewhere.

    Raises UserError.
    """
    parsed = parse_scheme(text)
    scheme = str(parsed)
    chosen = uniform(problem, scheme, (str(weights_alone(parsed)), "keep", *pins.values()))
    if scheme not in chosen.names.values():
        offered = dict.fromkeys(name for names in problem.candidates for name in names)
        raise UserError(f"no layer may take {scheme}; the profile has {', '.join(offered)}; measure it by "
                        "`bitplan profile --schemes`, or, where no kernel runs it, simulate with --kernels fake"
                        )  # fmt: skip
    return chosen


def check_pins(evidence: Evidence, request: Request) -> None:
    """Raise UserError for a pin to a scheme that was not measured, or that neither the target nor a kernel takes."""
    for pair in request.pins.items():
        if pair not in evidence.size and pair not in evidence.ruled_out:
            known = evidence.offered.get(pair[0], ())
            raise UserError(f"{pair[0]} was not measured at {pair[1]}{nearest_or_all(pair[1], known)}")
        if reason := evidence.ruled_out.get(pair):
            raise UserError(f"{evidence.target} cannot load {pair[1]} in {pair[0]} ({reason}); pin another scheme, or "
                            "leave --target out")  # fmt: skip
        if request.real and pair in evidence.simulated:
            raise UserError(f"no kernel runs {pair[1]} in {pair[0]}; pin another scheme, or take --kernels fake")


def check_uniform(evidence: Evidence, text: str) -> None:
    """Raise UserError for a scheme that the target can load in no layer."""
    scheme = str(parse_scheme(text))
    reasons = [evidence.ruled_out.get(pair) for pair in evidence.size if pair[1] == scheme]
    if reasons and all(reasons):
        raise UserError(f"{evidence.target} can load {scheme} in no layer ({reasons[0]}); take another scheme, or "
                        "leave --target out")  # fmt: skip


def _tightest(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """Return the tightest budget of each column; `--memory` and `--bits` both limit bytes."""
    columns = dict.fromkeys(budget.column for budget in budgets)
    return tuple(min((b for b in budgets if b.column == column), key=lambda b: b.limit) for column in columns)
