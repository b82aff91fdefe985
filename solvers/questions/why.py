"""Why a group got its candidate: what forcing each other one would cost, everything else chosen anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bitplan.solvers.problem import Problem, ProblemError, nearest, pin
from bitplan.solvers.solution import Choice, Solution
from bitplan.solvers.solve import solve


@dataclass(frozen=True)
class Alternative:
    """One candidate forced. solution: the best choice with it, or why there is none; cost: by how much the objective
    rises, None where there is no choice; moved: the other groups that then choose differently."""

    candidate: str
    solution: Solution
    cost: float | None
    moved: tuple[str, ...]


def alternatives(
    problem: Problem, choice: Choice, group: str, *, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> Iterator[Alternative]:  # fmt: skip
    """Every allowed candidate of the group in turn, the chosen one included.

    time_limit: seconds for each. Raises ProblemError for an unknown group, and BackendError.
    """
    if group not in problem.positions:
        raise ProblemError(f"no group is named {group!r}{nearest(group, problem.groups)}")
    place = problem.positions[group]
    for candidate, flat in zip(problem.candidates[place], problem.members(place), strict=True):
        if problem.allowed[flat]:
            forced = pin(problem, {group: candidate})
            yield _compare(choice, group, candidate, solve(forced, time_limit=time_limit, gap=gap, backend=backend))


def _compare(choice: Choice, group: str, candidate: str, solution: Solution) -> Alternative:
    if solution.choice is None:
        return Alternative(candidate, solution, None, ())
    moved = tuple(other for other, name in solution.chosen.items() if other != group and choice.names[other] != name)
    return Alternative(candidate, solution, solution.objective - choice.objective, moved)
