"""Pairwise terms: an amount that two groups' candidates add to the objective only when chosen together.

Each pair becomes a transportation problem between its two groups' choices, the tightest linear form of a product of
two "exactly one" choices (Adams and Sherali 1986, "A tight linearization and an algorithm for zero-one quadratic
programming problems"), with K x L more variables a pair. The fast steps of the exact path do not hold with pairs, so
PuLP solves the whole problem; `benchmarks/pairs.py` measures how many pairs are practical.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import DEFAULT, Deadline, Effort
from bitplan.solvers.problem import Mask, Problem, ProblemError, nearest
from bitplan.solvers.programs import program
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE
from bitplan.solvers.programs.modelling import pulp
from bitplan.solvers.reduction.minima import minima
from bitplan.solvers.reduction.presolve import affordable
from bitplan.solvers.solution import PROVEN, Choice, Solution, Status, choice_of, relative_gap
from bitplan.solvers.solve import solve


@dataclass(frozen=True, eq=False)
class PairTerm:
    """The interaction of two groups.

    Attributes:
        first, second: the names of the groups.
        terms: (K, L) what their candidates i and j add together; finite, of either sign.
    """

    first: str
    second: str
    terms: NDArray[np.float64]


def solve_pairs(problem: Problem, pairs: Sequence[PairTerm], effort: Effort = DEFAULT) -> Solution:
    """Return the best choice by the objective with the pairs' terms, which objective, bound and gap include.

    The search starts from the best choice without pairs. Raises ProblemError for pairs of unknown groups or of another
    shape, and BackendError.
    """
    for pair in pairs:
        _check(problem, pair)
    start, deadline, backend = time.monotonic(), effort.deadline(), backend_named(effort.backend)
    additive = solve(problem, replace(effort, gap=max(effort.gap, 1e-3)))
    if additive.choice is None:
        return additive
    choice, bound, reason = _run_program(problem, pairs, additive.choice, effort, deadline)
    bound = min(bound, choice.objective)
    status = Status.OPTIMAL if relative_gap(choice.objective, bound) <= PROVEN else Status.FEASIBLE
    return Solution(status, choice, bound, reason, time.monotonic() - start, backend.name)


def with_pairs(problem: Problem, pairs: Sequence[PairTerm], choice: Choice) -> Choice:
    """Return the choice with the pairs' terms in its objective."""
    place = np.asarray(choice.picks) - problem.offsets[:-1]
    at = problem.positions
    terms = [float(pair.terms[place[at[pair.first]], place[at[pair.second]]]) for pair in pairs]
    return replace(choice, objective=math.fsum([*problem.costs[list(choice.picks)], *terms]))


def _check(problem: Problem, pair: PairTerm) -> None:
    for group in (pair.first, pair.second):
        if group not in problem.positions:
            raise ProblemError(f"a pair names an unknown group {group!r}{nearest(group, problem.groups)}")
    shape = tuple(len(problem.candidates[problem.positions[group]]) for group in (pair.first, pair.second))
    if pair.first == pair.second or pair.terms.shape != shape or not np.isfinite(pair.terms).all():
        raise ProblemError(
            f"the pair {pair.first!r}, {pair.second!r} has terms of shape {pair.terms.shape}; give finite numbers of "
            f"shape {shape}, for two different groups"
        )


def _run_program(
    problem: Problem, pairs: Sequence[PairTerm], additive: Choice, effort: Effort, deadline: Deadline
) -> tuple[Choice, float, str]:
    """Return the best choice, its lower bound and why the backend stopped; cuts exclude answers that break a budget."""
    best, bound, reason = with_pairs(problem, pairs, additive), -math.inf, deadline.reason()
    keep, backend = affordable(problem, problem.allowed), backend_named(effort.backend)
    cuts: list[list[int]] = []
    while deadline.left() > 0:
        answer = program.run(problem, _build(problem, pairs, keep, cuts), backend, deadline, effort.gap)
        reason = answer.result.reason
        if answer.result.state not in (FAILED, INFEASIBLE):
            bound = max(bound, answer.bound)
        broken = violations(problem, answer.picks) if answer.picks else ()
        if not broken:
            choice = with_pairs(problem, pairs, choice_of(problem, answer.picks)) if answer.picks else best
            return min(best, choice, key=lambda each: each.objective), bound, reason
        cuts += [program.cover(problem, problem.budgets[rule.place], answer.picks or (), keep) for rule in broken]
    return best, bound, deadline.reason()


def _build(problem: Problem, pairs: Sequence[PairTerm], keep: Mask, cuts: list[list[int]]) -> program.Program:
    span = -math.fsum(minima(problem, -problem.costs, keep)[0]) - math.fsum(minima(problem, problem.costs, keep)[0])
    built = program.build(problem, keep, span + sum(float(np.ptp(pair.terms)) for pair in pairs), cuts)
    lp, terms = built.lp, []
    for number, pair in enumerate(pairs):
        rows, columns = (problem.members(problem.positions[group]) for group in (pair.first, pair.second))
        both = {
            (i, j): lp.add_variable(f"y{number}_{i}_{j}", 0, 1)
            for i, c in enumerate(rows) for j, d in enumerate(columns) if keep[c] and keep[d]
        }  # fmt: skip
        for side, members in enumerate((rows, columns)):
            for place, candidate in enumerate(members):
                if keep[candidate]:
                    flow = [(y, 1.0) for key, y in both.items() if key[side] == place]
                    lp += pulp.LpAffineExpression([*flow, (built.chosen[candidate], -1.0)]) == 0
        terms += [(y, math.ldexp(float(pair.terms[i, j]), built.power)) for (i, j), y in both.items()]
    lp.setObjective(lp.objective + pulp.LpAffineExpression(terms))
    return built
