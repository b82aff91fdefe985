"""The cost of each alternative candidate of one group, with all other groups chosen again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bitplan.solvers.effort import DEFAULT, Effort
from bitplan.solvers.problem import Problem, ProblemError, nearest, pin
from bitplan.solvers.solution import Choice, Solution
from bitplan.solvers.solve import solve


@dataclass(frozen=True)
class Alternative:
    """The best choice in which one group takes a given candidate.

    Attributes:
        candidate: the name of the forced candidate.
        solution: the best choice with it, or the reason why there is none.
        cost: the increase of the objective; None where there is no choice.
        moved: the other groups that then choose another candidate.
    """

    candidate: str
    solution: Solution
    cost: float | None
    moved: tuple[str, ...]


def alternatives(problem: Problem, choice: Choice, group: str, effort: Effort = DEFAULT) -> Iterator[Alternative]:
    """Force every allowed candidate of the group in turn, the chosen one included.

    The effort is for each candidate. Raises ProblemError for an unknown group, and BackendError.
    """
    if group not in problem.positions:
        raise ProblemError(f"no group is named {group!r}{nearest(group, problem.groups)}")
    place = problem.positions[group]
    for candidate, flat in zip(problem.candidates[place], problem.members(place), strict=True):
        if problem.allowed[flat]:
            yield _compare(choice, group, candidate, solve(pin(problem, {group: candidate}), effort))


def _compare(choice: Choice, group: str, candidate: str, solution: Solution) -> Alternative:
    if solution.choice is None:
        return Alternative(candidate, solution, None, ())
    moved = tuple(other for other, name in solution.chosen.items() if other != group and choice.names[other] != name)
    return Alternative(candidate, solution, solution.objective - choice.objective, moved)
