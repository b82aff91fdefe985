"""Explain why a problem has no solution: the least sum of each budget, and the groups that contribute most to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from bitplan.solvers.certify import exact_total
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Picks, Problem
from bitplan.solvers.programs import program
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.reduction.minima import cheapest, minima
from bitplan.solvers.solution import Choice, choice_of

Show = Mapping[str, Callable[[float], str]]  # column -> the text of a number, with its unit
EFFORT = Effort(time_limit=20.0)
NAMED = 3  # groups that are named for each budget


@dataclass(frozen=True)
class Contribution:
    """What one group contributes to the least sum of a column.

    Attributes:
        group, candidate: the group and its candidate in that sum.
        value: the candidate's value.
        share: of the sum.
        excess: above the group's smallest candidate of all, which a pin, a tie or a ban keeps it from; 0: none does.
    """

    group: str
    candidate: str
    value: int | float
    share: float
    excess: int | float


@dataclass(frozen=True)
class LeastSum:
    """The least sum of one budget's column under the ties, with all other budgets ignored.

    Attributes:
        column: the column that the budget limits.
        limit: the limit of the budget.
        smallest: the least sum.
        within: whether it is within the limit, compared exactly.
        contributions: the groups that contribute most to the sum, the largest first.
    """

    column: str
    limit: float
    smallest: int | float
    within: bool
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True)
class Explanation:
    """Why a problem has no solution; `str` gives it as one line.

    Attributes:
        least_sums: one for each budget; empty where ties and allowed candidates leave no choice at all.
        together: where each budget can be met alone, the choice for which all limits must grow by the least share.
        stretch: that share; 0 where all budgets can be met.
    """

    least_sums: tuple[LeastSum, ...]
    together: Choice | None = None
    stretch: float = 0.0

    def __str__(self) -> str:
        return message(self)


def explain(problem: Problem, effort: Effort = EFFORT, named: int = NAMED) -> Explanation:
    """Explain why the problem has no solution, or how far each budget of a feasible problem is from its least sum.

    Args:
        problem: the problem.
        effort: of the search for the choice that exceeds all limits by the least share.
        named: the number of groups to name for each budget.

    Raises:
        BackendError: for a backend that cannot run.
    """
    if cheapest(problem, problem.costs, problem.allowed) is None:
        return Explanation(())
    least_sums = tuple(_least_sum(problem, budget, named) for budget in problem.budgets)
    if len(least_sums) < 2 or not all(least.within for least in least_sums):
        return Explanation(least_sums)
    stretched = program.build_stretch(problem, problem.allowed)
    answer = program.run(problem, stretched, backend_named(effort.backend), effort.deadline(), 0.0)
    if answer.picks is None:
        return Explanation(least_sums)
    return Explanation(least_sums, choice_of(problem, answer.picks), _stretch(problem, answer.picks))


def message(explanation: Explanation, show: Show | None = None) -> str:
    """Return the explanation as one line; `show` formats the numbers of each column."""
    show = show or {}
    if not explanation.least_sums:
        return "the allowed candidates and the ties leave no choice at all; allow more candidates"
    above = [least for least in explanation.least_sums if not least.within]
    if above:
        return "; ".join(_above(least, show) for least in above)
    if explanation.together is None:
        return (
            "each budget can be met alone; whether all can be met together is unknown: raise a budget or the time limit"
        )
    if not explanation.stretch:
        return "all budgets can be met together"
    totals = explanation.together.totals
    example = ", ".join(
        f"{least.column} {_text(show, least.column, totals[least.column])} "
        f"(budget {_text(show, least.column, least.limit)})"
        for least in explanation.least_sums
    )
    return (
        f"each budget can be met alone, but not together: all would have to grow by {100 * explanation.stretch:.3g} %, "
        f"for example to {example}"
    )


def _least_sum(problem: Problem, budget: Budget, named: int) -> LeastSum:
    values = problem.column(budget.column)
    picks = cheapest(problem, values, problem.allowed) or ()
    total = exact_total(problem, budget.column, picks)
    smallest = int(total) if values.dtype.kind == "i" else float(total)
    contributions = _contributions(problem, budget.column, picks)[:named]
    return LeastSum(budget.column, float(budget.limit), smallest, total <= Fraction(budget.limit), contributions)


def _contributions(problem: Problem, column: str, picks: Picks) -> tuple[Contribution, ...]:
    """Return first the groups that cannot take their smallest candidate, by the excess; then the largest."""
    values, total = problem.column(column), float(exact_total(problem, column, picks))
    every = problem.allowed | True
    least = minima(problem, values, every)[1]
    contributions = []
    for place, (group, pick) in enumerate(zip(problem.groups, picks, strict=True)):
        name = problem.candidates[place][pick - int(problem.offsets[place])]
        value = values[pick].item()
        share, excess = value / total if total else 0.0, value - values[least[place]].item()
        contributions.append(Contribution(group, name, value, share, excess))
    positive = (each for each in contributions if each.value > 0)
    return tuple(sorted(positive, key=lambda each: (-each.excess, -each.value)))


def _stretch(problem: Problem, picks: Picks) -> float:
    """Return the largest share by which the choice exceeds a limit; a limit of 0 counts as 1."""
    shares = [
        (exact_total(problem, b.column, picks) - Fraction(b.limit)) / (abs(Fraction(b.limit)) or 1)
        for b in problem.budgets
    ]
    return float(max(Fraction(0), *shares))


def _above(least: LeastSum, show: Show) -> str:
    smallest, limit = _text(show, least.column, least.smallest), _text(show, least.column, least.limit)
    line = f"{least.column} can get no smaller than {smallest}, above the budget of {limit}"
    if not least.contributions:
        return line
    names = ", ".join(
        f"{each.group} ({each.candidate}, {_text(show, least.column, each.value)}"
        f"{', cannot take less' * (each.excess > 0)})"
        for each in least.contributions
    )
    return f"{line}; the largest parts are {names}"


def _text(show: Show, column: str, value: float) -> str:
    return show[column](value) if column in show else f"{value:.6g}"
