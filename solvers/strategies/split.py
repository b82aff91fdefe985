"""The two-set split of MixDQ, with sets found from the losses instead of layer names.

MixDQ scores layers that change the content of an image by one loss and all others by another, and selects them by name.
Here the objective has two columns, and each group is scored by the column in which its loss is larger, relative to the
other groups.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.certify import Violation, exact_total, violations
from bitplan.solvers.effort import DEFAULT, Effort
from bitplan.solvers.problem import Budget, Number, Problem, ProblemError, Tie
from bitplan.solvers.reduction.minima import cheapest
from bitplan.solvers.reduction.ties import bundles
from bitplan.solvers.solution import Choice, Solution, choice_of
from bitplan.solvers.solve import solution_of, solve
from bitplan.solvers.strategies.base import accept, begin


@dataclass(frozen=True)
class Split:
    """A partition of a problem's groups in two sets.

    Attributes:
        first: the groups of the first set; all others are in the second.
        objectives: column -> weight, for each set.
        column: the column whose budget the sets share.
    """

    first: frozenset[str]
    objectives: tuple[Mapping[str, float], Mapping[str, float]]
    column: str


@dataclass(frozen=True)
class SplitPoint:
    """The result at one share of the budget.

    Attributes:
        share: the part of the first set.
        solutions: of each set.
        choice: both choices together, with the objective of the whole problem; None where a set has none.
        broken: the rules of the whole problem that this choice breaks.
    """

    share: Fraction
    solutions: tuple[Solution, Solution]
    choice: Choice | None
    broken: tuple[Violation, ...]


def halves(problem: Problem, split: Split) -> tuple[Problem, Problem]:
    """Return each set as a problem without budgets; a tie holds within each set only. Raises ProblemError."""
    unknown = split.first - set(problem.groups)
    inside = [group in split.first for group in problem.groups]
    if unknown or all(inside) or not any(inside):
        wrong = (
            f"names {min(unknown)!r}, which is not a group" if unknown else f"has {sum(inside)} groups in its first set"
        )
        raise ProblemError(f"the split {wrong}; put some of the {len(problem.groups)} groups in each set")
    one, two = (_part(problem, [flag is side for flag in inside]) for side in (True, False))
    return replace(one, objective=split.objectives[0]), replace(two, objective=split.objectives[1])


def limit_of(problem: Problem, column: str) -> Fraction:
    """Return the tightest budget on the column. Raises ProblemError where there is none."""
    limits = [Fraction(budget.limit) for budget in problem.budgets if budget.column == column]
    if not limits:
        raise ProblemError(f"there is no budget on {column!r}; a split shares one, so give it")
    return min(limits)


def share_of(problem: Problem, split: Split, factor: float) -> Fraction:
    """Return the first set's share if it gets `factor` times as much of the column as the second, relative to its size.

    A set's size is its largest possible sum. With one largest format this is MixDQ's `get_mean_bit`: the factor is the
    ratio of the sets' mean bits. Raises ProblemError.
    """
    if not 0 <= factor < float("inf"):
        raise ProblemError(f"the split factor is {factor}; give a finite number of at least 0")
    first, second = (_extreme(half, split.column, largest=True) for half in halves(problem, split))
    scaled = Fraction(factor) * first
    return limit_of(problem, split.column) * scaled / (scaled + second) if scaled + second else Fraction(0)


def shares(problem: Problem, split: Split, count: int) -> tuple[Fraction, ...]:
    """Return `count` >= 2 evenly spaced shares of the first set, from its least sum to its greatest within the limit.

    The second set's least sum is always left to it; the result is empty if even the two least sums exceed the limit.
    Raises ProblemError.
    """
    if count < 2:
        raise ProblemError(f"a sweep of {count} shares has fewer than two ends; ask for at least 2")
    first, second = halves(problem, split)
    low = _extreme(first, split.column)
    high = min(limit_of(problem, split.column) - _extreme(second, split.column), _extreme(first, split.column, True))
    if high < low:
        return ()
    return tuple(low + (high - low) * step / (count - 1) for step in range(count))


def divide(problem: Problem, split: Split, share: Number, effort: Effort = DEFAULT) -> SplitPoint:
    """Solve each set by itself, the first within `share`, the second within the rest; the effort is for each set.

    Raises ProblemError.
    """
    part = Fraction(share)
    budgets = (Budget(split.column, part), Budget(split.column, limit_of(problem, split.column) - part))
    one, two = (
        solve(replace(half, budgets=(budget,)), effort)
        for half, budget in zip(halves(problem, split), budgets, strict=True)
    )
    return _point(problem, part, (one, two))


def sweep(problem: Problem, split: Split, parts: Sequence[Number], effort: Effort = DEFAULT) -> tuple[SplitPoint, ...]:
    """Solve the split for each share of the first set, in order; the effort is for all of them.

    Raises ProblemError, also where the time ends before the last share.
    """
    start = time.monotonic()
    points = _sweep(problem, split, parts, effort, start)
    if len(points) < len(parts):
        progress = f"{len(points)} of {len(parts)} shares took {effort.time_limit:g} s"
        raise ProblemError(f"{progress}; allow more time, or ask for fewer shares")
    return tuple(points)


def best(points: Sequence[SplitPoint], column: str | None = None) -> SplitPoint | None:
    """Return the feasible point of the least sum of the column, or, for None, of the least objective."""
    feasible = [(point, point.choice) for point in points if point.choice is not None and not point.broken]
    if not feasible:
        return None
    return min(feasible, key=lambda pair: pair[1].objective if column is None else pair[1].totals[column])[0]


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
    """Return the least or greatest sum of the column over allowed choices. Raises ProblemError if none exists."""
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
    """Return the best choice of a sweep of evenly spaced shares of the first budget, as far as the time allows.

    The bound is the least objective without budgets. Raises ProblemError, see `split_of`.
    """
    start = time.monotonic()
    split = split_of(problem)
    core, state = begin(problem)
    if core is not None and not state.infeasible:
        parts = shares(problem, split, STEPS)
        points = _sweep(problem, split, parts, effort, start)
        reason = f"the best of {len(points)} shares"
        if len(points) < len(parts):
            reason = f"the best of {len(points)} of {STEPS} shares, when the time limit was reached"
        point = best(points)
        choice = point.choice if point else None
        state = accept(problem, replace(state, choice=None), choice.picks if choice else None, reason)
    return solution_of(state, time.monotonic() - start, "split")


def split_of(problem: Problem) -> Split:
    """Return the split by the two columns of the objective; the sets share the first budget.

    A group is in the first set, scored by the second column alone, if its mean loss in that column, relative to the
    mean over all groups, is larger than in the first column. Tied groups stay together, by their sums. Raises
    ProblemError unless the objective has two columns, there is a budget, and both sets have groups.
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
        raise ProblemError(f"{one} and {two} do not split the groups in two sets; take another solver")
    return Split(first, ({two: weights[two]}, {one: weights[one]}), problem.budgets[0].column)


def _relative(problem: Problem, column: str) -> NDArray[np.float64]:
    """Return (N,) each group's mean over its candidates, in units of the mean over all groups."""
    values = problem.column(column).astype(np.float64)
    means = np.add.reduceat(values, problem.offsets[:-1]) / np.diff(problem.offsets)
    return means / (means.mean() or 1.0)


def _sweep(problem: Problem, split: Split, parts: Sequence[Number], effort: Effort, start: float) -> list[SplitPoint]:
    """Return the points that the time allows. start: of the time limit, on the clock of `time.monotonic`."""
    points: list[SplitPoint] = []
    for part in parts:
        left = effort.time_limit - (time.monotonic() - start)
        if left <= 0 or effort.stopped():
            break
        points.append(divide(problem, split, part, replace(effort, time_limit=left / 2)))
    return points
