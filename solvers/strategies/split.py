"""The published two-set split, with the sets told apart by numbers instead of names.

MixDQ scores layers that change what is seen by one loss, all others by another, and knows them by their names. Here the
objective has two columns, and groups are scored by the one in which they lose more than others do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.certify import Violation, exact_total, violations
from bitplan.solvers.problem import Budget, Number, Problem, ProblemError, Tie
from bitplan.solvers.reduction.relax import cheapest
from bitplan.solvers.reduction.ties import bundles
from bitplan.solvers.solution import Choice, Solution, choice_of
from bitplan.solvers.solve import solution_of, solve
from bitplan.solvers.strategies.base import Effort, begin, met


@dataclass(frozen=True)
class Split:
    """How a problem is parted. first: the groups of the first set, the others are the second; objectives: the loss
    columns and weights of each set; column: the one whose budget is shared, of the problem's own limit."""

    first: frozenset[str]
    objectives: tuple[Mapping[str, float], Mapping[str, float]]
    column: str


@dataclass(frozen=True)
class SplitPoint:
    """One way to share. share: the part of the first set; choice: both answers together, with the objective of the
    whole problem, None where a set had no answer; broken: what it breaks of the whole problem, other budgets too."""

    share: Fraction
    solutions: tuple[Solution, Solution]
    choice: Choice | None
    broken: tuple[Violation, ...]


def halves(problem: Problem, split: Split) -> tuple[Problem, Problem]:
    """Each set as a problem of its own, without budgets; a tie binds within each set alone. Raises ProblemError."""
    unknown = split.first - set(problem.groups)
    inside = [group in split.first for group in problem.groups]
    if unknown or all(inside) or not any(inside):
        wrong = (
            f"names {min(unknown)!r}, which there is not" if unknown else f"has {sum(inside)} groups in its first set"
        )
        raise ProblemError(f"the split {wrong}; put some of the {len(problem.groups)} groups in each set")
    one, two = (_part(problem, [flag is side for flag in inside]) for side in (True, False))
    return replace(one, objective=split.objectives[0]), replace(two, objective=split.objectives[1])


def limit_of(problem: Problem, column: str) -> Fraction:
    """The tightest budget on the column. Raises ProblemError where there is none."""
    limits = [Fraction(budget.limit) for budget in problem.budgets if budget.column == column]
    if not limits:
        raise ProblemError(f"no budget is on {column!r}; a split shares one, so give it")
    return min(limits)


def share_of(problem: Problem, split: Split, factor: float) -> Fraction:
    """The first set's part where it gets `factor` times as much of the column for each unit of its size.

    A set's size is the most it can take. With one largest format this is MixDQ's `get_mean_bit`: the factor is the
    first set's mean bits over the second's. Raises ProblemError.
    """
    if not 0 <= factor < float("inf"):
        raise ProblemError(f"the split factor is {factor}; give a finite number of at least 0")
    first, second = (_extreme(half, split.column, largest=True) for half in halves(problem, split))
    scaled = Fraction(factor) * first
    return limit_of(problem, split.column) * scaled / (scaled + second) if scaled + second else Fraction(0)


def shares(problem: Problem, split: Split, count: int) -> tuple[Fraction, ...]:
    """`count` >= 2 even steps, from the least that the first set can take to all that the second's least leaves, or to
    the most that the first can take. None where both leasts exceed the limit. Raises ProblemError."""
    if count < 2:
        raise ProblemError(f"a sweep of {count} shares has no two ends; ask for at least 2")
    first, second = halves(problem, split)
    low = _extreme(first, split.column)
    high = min(limit_of(problem, split.column) - _extreme(second, split.column), _extreme(first, split.column, True))
    if high < low:
        return ()
    return tuple(low + (high - low) * step / (count - 1) for step in range(count))


def divide(
    problem: Problem, split: Split, share: Number, *,
    time_limit: float = 60.0, gap: float = 0.0, backend: str | None = None,
) -> SplitPoint:  # fmt: skip
    """Each set solved by itself, the first within `share`, the second within the rest; time_limit: seconds for each.

    Raises ProblemError.
    """
    part = Fraction(share)
    budgets = (Budget(split.column, part), Budget(split.column, limit_of(problem, split.column) - part))
    one, two = (
        solve(replace(half, budgets=(budget,)), time_limit=time_limit, gap=gap, backend=backend)
        for half, budget in zip(halves(problem, split), budgets, strict=True)
    )
    return _point(problem, part, (one, two))


def sweep(
    problem: Problem, split: Split, parts: Sequence[Number], *,
    time_limit: float = 60.0, gap: float = 0.0, backend: str | None = None,
) -> tuple[SplitPoint, ...]:  # fmt: skip
    """The split solved for each part of the first set, in order; time_limit is for all of them.

    Raises ProblemError, also where the time is over before the last part.
    """
    deadline = time.monotonic() + time_limit
    points: list[SplitPoint] = []
    for part in parts:
        left = deadline - time.monotonic()
        if left <= 0:
            done = f"{len(points)} of {len(parts)} shares took {time_limit:g} s"
            raise ProblemError(f"{done}; allow more, or ask for fewer shares")
        points.append(divide(problem, split, part, time_limit=left / 2, gap=gap, backend=backend))
    return tuple(points)


def best(points: Sequence[SplitPoint], column: str | None = None) -> SplitPoint | None:
    """The point of least sum of the column, or of least objective, among those that break nothing; None for none."""
    whole = [(point, point.choice) for point in points if point.choice is not None and not point.broken]
    if not whole:
        return None
    return min(whole, key=lambda found: found[1].objective if column is None else found[1].totals[column])[0]


def _part(problem: Problem, inside: Sequence[bool]) -> Problem:
    flat = np.repeat(inside, np.diff(problem.offsets))
    groups = tuple(group for group, flag in zip(problem.groups, inside, strict=True) if flag)
    ties = ({g: labels for g, labels in tie.labels.items() if g in set(groups)} for tie in problem.ties)
    return Problem(
        groups,
        tuple(names for names, flag in zip(problem.candidates, inside, strict=True) if flag),
        {name: values[flat] for name, values in problem.columns.items()},
        {},
        ties=tuple(Tie(labels) for labels in ties if len(labels) > 1),
        allowed=problem.allowed[flat],
    )


def _extreme(half: Problem, column: str, largest: bool = False) -> Fraction:
    """The least, or greatest, sum of the column over allowed choices. Raises ProblemError where there is no choice."""
    values = half.column(column)
    picks = cheapest(half, values.max() - values if largest else values, half.allowed)
    if picks is None:
        raise ProblemError(f"the set of group {half.groups[0]!r} has no choice that fits its ties; allow more")
    return exact_total(half, column, picks)


def _point(problem: Problem, share: Fraction, answers: tuple[Solution, Solution]) -> SplitPoint:
    if any(answer.choice is None for answer in answers):
        return SplitPoint(share, answers, None, ())
    names = {**answers[0].chosen, **answers[1].chosen}
    picks = tuple(problem.index(group, names[group]) for group in problem.groups)
    return SplitPoint(share, answers, choice_of(problem, picks), violations(problem, picks))


STEPS = 20  # ways to share the budget


def run(problem: Problem, effort: Effort) -> Solution:
    """The best of an even sweep of shares of the first budget; where another budget or the time ends it, of what is
    left. Its bound is the least objective, budgets aside. Raises ProblemError, see `split_of`."""
    start = time.monotonic()
    split = split_of(problem)
    core, state = begin(problem)
    if core is not None and not state.infeasible:
        points, why = _sweep(problem, split, effort, start)
        found = best(points)
        choice = found.choice if found else None
        state = met(problem, replace(state, choice=None), choice.picks if choice else None, why)
    return solution_of(state, time.monotonic() - start, "split")


def split_of(problem: Problem) -> Split:
    """The sets, by the two columns of the objective, sharing the first budget.

    A group is of the first set, scored by the second column alone, where its mean of that column over its candidates,
    in units of the mean over all groups, is larger than that of the first column. Tied groups go together, by their
    sums. Raises ProblemError for an objective of other than two columns, no budget, or a set without groups.
    """
    weights = {name: weight for name, weight in problem.objective.items() if weight > 0}
    if len(weights) != 2:
        raise ProblemError(f"a split needs two columns in the objective and has {len(weights)} ({', '.join(weights)}); "
                           "weigh two, or take another solver")  # fmt: skip
    if not problem.budgets:
        raise ProblemError("a split shares a budget, and there is none; give one, or take another solver")
    one, two = weights
    more = _relative(problem, two) - _relative(problem, one)
    sets = [bundle.places for bundle in bundles(problem) if more[list(bundle.places)].sum() > 0]
    first = frozenset(problem.groups[place] for places in sets for place in places)
    if len(first) in (0, len(problem.groups)):
        raise ProblemError(f"{one} and {two} single out no set of groups to split off; take another solver")
    return Split(first, ({two: weights[two]}, {one: weights[one]}), problem.budgets[0].column)


def _relative(problem: Problem, column: str) -> NDArray[np.float64]:
    """(N,): each group's mean over its candidates, in units of the mean over all groups."""
    values = problem.column(column).astype(np.float64)
    means = np.add.reduceat(values, problem.offsets[:-1]) / np.diff(problem.offsets)
    return means / (means.mean() or 1.0)


def _sweep(problem: Problem, split: Split, effort: Effort, start: float) -> tuple[list[SplitPoint], str]:
    points: list[SplitPoint] = []
    for share in shares(problem, split, STEPS):
        left = effort.time_limit - (time.monotonic() - start)
        if left <= 0:
            return points, f"the best of {len(points)} of {STEPS} shares, when the time limit was reached"
        points.append(divide(problem, split, share, time_limit=left / 2, gap=effort.gap, backend=effort.backend))
    return points, f"the best of {len(points)} shares"
