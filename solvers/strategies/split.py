"""The published two-set split, with the sets told apart by numbers instead of names.

MixDQ scores layers that change what is seen by one loss, all others by another, and knows them by their names. Here the
objective has two columns, and groups are scored by the one in which they lose more than others do.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.problem import Problem, ProblemError
from solvers.solution import Solution
from solvers.solve import solution_of
from solvers.split import Point, Split, best, divide, shares
from solvers.strategies.base import Effort, begin, met
from solvers.ties import bundles

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


def _sweep(problem: Problem, split: Split, effort: Effort, start: float) -> tuple[list[Point], str]:
    points: list[Point] = []
    for share in shares(problem, split, STEPS):
        left = effort.time_limit - (time.monotonic() - start)
        if left <= 0:
            return points, f"the best of {len(points)} of {STEPS} shares, when the time limit was reached"
        points.append(divide(problem, split, share, time_limit=left / 2, gap=effort.gap, backend=effort.backend))
    return points, f"the best of {len(points)} shares"
