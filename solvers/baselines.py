"""What exact answers are compared with, as choices to be certified like any other: uniform and greedy."""

from __future__ import annotations

from collections.abc import Sequence

from solvers.greedy import greedy
from solvers.problem import Problem, ProblemError, nearest
from solvers.solution import Choice, choice_of

__all__ = ["greedy", "uniform"]


def uniform(problem: Problem, label: str, fallback: Sequence[str] = ()) -> Choice:
    """Every group takes the candidate named `label`, or the first of `fallback` that it has and may take.

    Looks at no budget and no tie; `certify.violations` tells what it breaks. Raises ProblemError where a group has
    none of the names.
    """
    picks = tuple(_named(problem, place, (label, *fallback)) for place in range(len(problem.groups)))
    return choice_of(problem, picks)


def _named(problem: Problem, place: int, names: tuple[str, ...]) -> int:
    members = problem.members(place)
    allowed = {n: c for n, c in zip(problem.candidates[place], members, strict=True) if problem.allowed[c]}
    for name in names:
        if name in allowed:
            return allowed[name]
    wanted = " or ".join(repr(name) for name in names)
    advice = nearest(names[0], allowed) or "; it may take nothing"
    raise ProblemError(f"group {problem.groups[place]!r} may not take {wanted}{advice} (or name a fallback)")
