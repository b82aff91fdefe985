"""Why a problem has no solution: how small each budget's sum can get, alone and together, and which groups pin it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from bitplan.solvers.certify import exact_total
from bitplan.solvers.problem import Budget, Picks, Problem
from bitplan.solvers.programs import ilp
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.reduction.relax import cheapest, minima
from bitplan.solvers.solution import Choice, choice_of

Show = Mapping[str, Callable[[float], str]]


@dataclass(frozen=True)
class Pin:
    """A group that keeps a sum up. share: of the smallest sum; excess: above the group's least candidate of all,
    which pins, ties or forbidden candidates keep it from (0: it is merely large)."""

    group: str
    candidate: str
    value: int | float
    share: float
    excess: int | float


@dataclass(frozen=True)
class Reach:
    """How small the sum of one budget's column can get with ties respected and all other budgets ignored."""

    column: str
    limit: float
    smallest: int | float
    reachable: bool
    pins: tuple[Pin, ...]


@dataclass(frozen=True)
class Explanation:
    """reaches: one a budget, empty where ties and allowed candidates leave no choice at all; together: where each
    budget can be met alone, the choice for which all limits must grow by the least share, `stretch`."""

    reaches: tuple[Reach, ...]
    together: Choice | None = None
    stretch: float = 0.0


def explain(problem: Problem, *, time_limit: float = 20.0, backend: str | None = None, pins: int = 3) -> Explanation:
    """Why the problem has no solution (or, where it has one, how far each budget is from trouble).

    time_limit: seconds for the joint answer; pins: how many groups to name for each budget. Raises BackendError.
    """
    if cheapest(problem, problem.costs, problem.allowed) is None:
        return Explanation(())
    reaches = tuple(_reach(problem, budget, pins) for budget in problem.budgets)
    if len(reaches) < 2 or not all(reach.reachable for reach in reaches):
        return Explanation(reaches)
    program = ilp.build_stretch(problem, problem.allowed)
    answer = ilp.run(problem, program, backend_named(backend), time_limit, 0.0)
    if answer.picks is None:
        return Explanation(reaches)
    return Explanation(reaches, choice_of(problem, answer.picks), _stretch(problem, answer.picks))


def message(explanation: Explanation, show: Show | None = None) -> str:
    """One line for the user. show: column -> how to write its numbers, units included."""
    show = show or {}
    if not explanation.reaches:
        return "the allowed candidates and the ties leave no choice at all; allow more candidates"
    missed = [reach for reach in explanation.reaches if not reach.reachable]
    if missed:
        return "; ".join(_missed(reach, show) for reach in missed)
    if explanation.together is None:
        return "each budget can be met alone; whether together is not known: raise one, or the time limit"
    if not explanation.stretch:
        return "all budgets can be met together"
    totals = explanation.together.totals
    wanted = ", ".join(
        f"{r.column} {_text(show, r.column, totals[r.column])} (budget {_text(show, r.column, r.limit)})"
        for r in explanation.reaches
    )
    return (
        f"each budget can be met alone, but not together: all would have to grow by {100 * explanation.stretch:.3g} %, "
        f"for example to {wanted}"
    )


def _reach(problem: Problem, budget: Budget, count: int) -> Reach:
    values = problem.column(budget.column)
    picks = cheapest(problem, values, problem.allowed) or ()
    total = exact_total(problem, budget.column, picks)
    smallest = int(total) if values.dtype.kind == "i" else float(total)
    pins = _pins(problem, budget.column, picks, count)
    return Reach(budget.column, float(budget.limit), smallest, total <= Fraction(budget.limit), pins)


def _pins(problem: Problem, column: str, picks: Picks, count: int) -> tuple[Pin, ...]:
    """First the groups that are kept from their least candidate, by how far; then the largest."""
    values, total = problem.column(column), float(exact_total(problem, column, picks))
    everything = problem.allowed | True
    least = minima(problem, values, everything)[1]
    found = []
    for place, (group, pick) in enumerate(zip(problem.groups, picks, strict=True)):
        name = problem.candidates[place][pick - int(problem.offsets[place])]
        value = values[pick].item()
        found.append(Pin(group, name, value, value / total if total else 0.0, value - values[least[place]].item()))
    found = [pin for pin in found if pin.value > 0]
    return tuple(sorted(found, key=lambda pin: (-pin.excess, -pin.value))[:count])


def _stretch(problem: Problem, picks: Picks) -> float:
    """The largest share by which the choice exceeds a limit; a limit of 0 counts as 1."""
    shares = [
        (exact_total(problem, b.column, picks) - Fraction(b.limit)) / (abs(Fraction(b.limit)) or 1)
        for b in problem.budgets
    ]
    return float(max(Fraction(0), *shares))


def _missed(reach: Reach, show: Show) -> str:
    smallest, limit = _text(show, reach.column, reach.smallest), _text(show, reach.column, reach.limit)
    line = f"{reach.column} can get no smaller than {smallest}, above the budget of {limit}"
    if not reach.pins:
        return line
    names = ", ".join(
        f"{pin.group} ({pin.candidate}, {_text(show, reach.column, pin.value)}{', kept from less' * (pin.excess > 0)})"
        for pin in reach.pins
    )
    return f"{line}; most of it is pinned by {names}"


def _text(show: Show, column: str, value: float) -> str:
    return show[column](value) if column in show else f"{value:.6g}"
