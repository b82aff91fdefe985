"""Pairwise terms: what two groups' candidates add to the objective, or take from it, only when chosen together.

Each pair becomes a transport problem between its two groups' choices, the tightest linear form there is of a product of
"exactly one" choices (Adams and Sherali 1986, "A tight linearization and an algorithm for zero-one quadratic
programming problems"): K x L more variables a pair. None of the fast steps of `exact` hold with pairs, so PuLP gets the
whole problem; `benchmarks/pairs.py` measures how many pairs it can take.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pulp
from numpy.typing import NDArray

from bitplan.solvers.certify import violations
from bitplan.solvers.problem import Problem, ProblemError, nearest
from bitplan.solvers.programs import ilp
from bitplan.solvers.programs.backends import backend_named
from bitplan.solvers.programs.backends.base import FAILED, INFEASIBLE
from bitplan.solvers.reduction.presolve import affordable
from bitplan.solvers.reduction.relax import minima
from bitplan.solvers.solution import PROVEN, Choice, Solution, Status, choice_of, relative_gap
from bitplan.solvers.solve import solve


@dataclass(frozen=True, eq=False)
class Pair:
    """Two groups, and what their candidates i and j add together: terms (K, L), finite, of either sign."""

    first: str
    second: str
    terms: NDArray[np.float64]


def solve_pairs(
    problem: Problem, pairs: Sequence[Pair], *, time_limit: float = 60.0, gap: float = 0.0, backend: str | None = None
) -> Solution:
    """The best choice by the objective with the pairs' terms, which its objective, bound and gap count.

    Begins with the best choice without pairs. time_limit, gap, backend: as in `solve`. Raises ProblemError for pairs of
    unknown groups or of another shape, and BackendError.
    """
    for pair in pairs:
        _check(problem, pair)
    start, chosen = time.monotonic(), backend_named(backend)
    plain = solve(problem, time_limit=time_limit, gap=max(gap, 1e-3), backend=backend)
    if plain.choice is None:
        return plain
    best, bound, why = with_pairs(problem, pairs, plain.choice), -math.inf, "the time limit was reached"
    keep = affordable(problem, problem.allowed)
    cuts: list[list[int]] = []
    while (left := time_limit - (time.monotonic() - start)) > 0:
        program = _build(problem, pairs, keep, cuts)
        answer = ilp.run(problem, program, chosen, left, gap)
        why = answer.ended.why
        if answer.ended.state not in (FAILED, INFEASIBLE):
            bound = max(bound, answer.bound)
        broken = violations(problem, answer.picks) if answer.picks else ()
        if not broken:
            found = with_pairs(problem, pairs, choice_of(problem, answer.picks)) if answer.picks else best
            best = min(best, found, key=lambda choice: choice.objective)
            break
        cuts += [ilp.cover(problem, problem.budgets[v.place], answer.picks or (), keep) for v in broken]
    bound = min(bound, best.objective)
    status = Status.OPTIMAL if relative_gap(best.objective, bound) <= PROVEN else Status.FEASIBLE
    return Solution(status, best, bound, why, time.monotonic() - start, chosen.name)


def with_pairs(problem: Problem, pairs: Sequence[Pair], choice: Choice) -> Choice:
    """The choice with the pairs' terms in its objective."""
    place = np.asarray(choice.picks) - problem.offsets[:-1]
    at = problem.positions
    terms = [float(pair.terms[place[at[pair.first]], place[at[pair.second]]]) for pair in pairs]
    return replace(choice, objective=math.fsum([*problem.costs[list(choice.picks)], *terms]))


def _check(problem: Problem, pair: Pair) -> None:
    for group in (pair.first, pair.second):
        if group not in problem.positions:
            raise ProblemError(f"a pair names group {group!r}, which there is not{nearest(group, problem.groups)}")
    shape = tuple(len(problem.candidates[problem.positions[group]]) for group in (pair.first, pair.second))
    if pair.first == pair.second or pair.terms.shape != shape or not np.isfinite(pair.terms).all():
        raise ProblemError(
            f"the pair {pair.first!r}, {pair.second!r} has terms of shape {pair.terms.shape}; give finite numbers of "
            f"shape {shape}, for two different groups"
        )


def _build(problem: Problem, pairs: Sequence[Pair], keep: NDArray[np.bool_], cuts: list[list[int]]) -> ilp.Program:
    most = -math.fsum(minima(problem, -problem.costs, keep)[0]) - math.fsum(minima(problem, problem.costs, keep)[0])
    program = ilp.build(problem, keep, most + sum(float(np.ptp(pair.terms)) for pair in pairs), cuts)
    lp, terms = program.lp, []
    for number, pair in enumerate(pairs):
        rows, columns = (problem.members(problem.positions[group]) for group in (pair.first, pair.second))
        kept = [(i, j) for i, c in enumerate(rows) for j, d in enumerate(columns) if keep[c] and keep[d]]
        both = {(i, j): lp.add_variable(f"y{number}_{i}_{j}", 0, 1) for i, j in kept}
        for side, members in enumerate((rows, columns)):
            for place, candidate in enumerate(members):
                if keep[candidate]:
                    flow = [(y, 1.0) for key, y in both.items() if key[side] == place]
                    lp += pulp.LpAffineExpression([*flow, (program.chosen[candidate], -1.0)]) == 0
        terms += [(y, math.ldexp(float(pair.terms[i, j]), program.power)) for (i, j), y in both.items()]
    lp.setObjective(lp.objective + pulp.LpAffineExpression(terms))
    return program
