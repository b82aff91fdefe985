"""The integer program: built with PuLP, scaled to the tolerances of the backends, and read back as a choice.

There is one binary variable for each kept candidate and one "exactly one" row for each group; for each tie and label,
all groups of the tie use the label or none does. Rows and objective count from each group's least value, so that only
differences remain, and are scaled by powers of two: the slack of a budget to about 2^10, the span of the objective to
about 2^20. Rows are slightly wider than their budgets: those of integer columns by half a unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from bitplan.solvers.effort import Deadline
from bitplan.solvers.problem import Budget, Mask, Number, Picks, Problem
from bitplan.solvers.programs.backends import Backend
from bitplan.solvers.programs.backends.base import FAILED, ProgramResult
from bitplan.solvers.programs.modelling import pulp
from bitplan.solvers.reduction.minima import minima
from bitplan.solvers.reduction.presolve import row_of

SLACK, SPAN = 10, 20  # powers of two
WIDENING = 1e-8  # share of a budget's slack: a backend may cut off what meets a row exactly; `cover` cuts what exceeds
INTEGRAL = 1e-4  # a variable further than this from an integer was not rounded by the backend


@dataclass(frozen=True)
class ProgramAnswer:
    """A backend's answer in the terms of the problem.

    Attributes:
        result: how the backend ended.
        picks: the choice; None where the backend has none.
        bound: the lower bound on the objective.
    """

    result: ProgramResult
    picks: Picks | None
    bound: float


@dataclass(frozen=True)
class Program:
    """A PuLP program.

    Attributes:
        lp: the program.
        chosen: flat candidate -> its binary variable.
        base, power: the problem's objective is base + the program's objective * 2^-power.
    """

    lp: pulp.LpProblem
    chosen: dict[int, pulp.LpVariable]
    base: float
    power: int


def build(problem: Problem, keep: Mask, span: float, cuts: Sequence[Sequence[int]] = ()) -> Program:
    """Build the program over the kept candidates.

    Args:
        problem: the problem.
        keep: (C,) the candidates to include.
        span: how far above the least sum the objective may lie; sets the scale.
        cuts: sets of candidates, from several groups; not all of these groups may choose from the set (see `cover`).
    """
    lp, chosen = _groups_and_ties(problem, keep)
    for budget in problem.budgets:
        _add_budget(lp, chosen, problem, budget, keep)
    for cut in cuts:
        groups = np.unique(np.searchsorted(problem.offsets, cut, side="right"))
        lp += _sum(chosen, [(c, 1.0) for c in cut if c in chosen]) <= len(groups) - 1
    least = minima(problem, problem.costs, keep)[0]
    extra = problem.costs - np.repeat(least, np.diff(problem.offsets))
    power = SPAN - _power(span)
    lp.setObjective(_sum(chosen, [(c, math.ldexp(extra[c], power)) for c in chosen]))
    return Program(lp, chosen, math.fsum(least), power)


def build_stretch(problem: Problem, keep: Mask) -> Program:
    """Build the program that minimises the share by which all limits must grow together to admit a choice."""
    lp, chosen = _groups_and_ties(problem, keep)
    stretch = lp.add_variable("stretch", 0)
    for budget in problem.budgets:
        row = row_of(problem, budget, keep)
        unit = max(abs(float(budget.limit)), abs(row.slack), float(row.extra[keep].max())) or 1.0
        terms = _sum(chosen, [(c, float(row.extra[c]) / unit) for c in chosen])
        lp += terms - (abs(float(budget.limit)) / unit or 1.0) * stretch <= row.slack / unit
    lp.setObjective(stretch * 1.0)
    return Program(lp, chosen, 0.0, 0)


def run(problem: Problem, program: Program, backend: Backend, deadline: Deadline, gap: float) -> ProgramAnswer:
    """Solve the program with a backend. gap: relative to the objective above its base."""
    result = backend.run(program.lp, deadline, gap)
    if result.has_values and not _is_integral(program):
        result = replace(result, state=FAILED, has_values=False, reason="the backend's answer is not integral")
    bound = program.base + math.ldexp(result.bound, -program.power) if math.isfinite(result.bound) else result.bound
    return ProgramAnswer(result, _picks(problem, program) if result.has_values else None, bound)


def cover(problem: Problem, budget: Budget, picks: Picks, keep: Mask) -> list[int]:
    """Return candidates of a few groups that exceed the budget wherever each of these groups chooses one of them.

    This is the extended cover inequality of the knapsack (Balas 1975): a candidate is extended to all candidates of its
    group of at least its weight.
    """
    values, extra = problem.column(budget.column), row_of(problem, budget, keep).extra
    exact = values.astype(object) if values.dtype.kind == "i" else np.array([_exact(v) for v in values], dtype=object)
    least = exact[minima(problem, values, keep)[1]]
    excess = sum(exact[list(picks)]) - _exact(budget.limit)
    cut: list[int] = []
    for place in np.argsort(extra[list(picks)], kind="stable"):
        step = exact[picks[place]] - least[place]
        if step < excess:  # the budget is exceeded even with this group at its least: leave the group out
            excess -= step
        else:
            cut += [c for c in problem.members(int(place)) if keep[c] and exact[c] >= exact[picks[place]]]
    return cut


def _groups_and_ties(problem: Problem, keep: Mask) -> tuple[pulp.LpProblem, dict[int, pulp.LpVariable]]:
    lp = pulp.LpProblem("choices", pulp.LpMinimize)
    chosen = {int(c): lp.add_variable(f"x{c}", 0, 1, pulp.LpInteger) for c in np.flatnonzero(keep)}
    for place in range(len(problem.groups)):
        lp += _sum(chosen, [(c, 1.0) for c in problem.members(place) if keep[c]]) == 1
    for number, tie in enumerate(problem.ties):
        names = dict.fromkeys(label for labels in tie.labels.values() for label in labels)
        uses = {label: lp.add_variable(f"t{number}_{i}", 0, 1) for i, label in enumerate(names)}
        for group, labels in tie.labels.items():
            members = problem.members(problem.positions[group])
            for label, variable in uses.items():
                same = [(c, 1.0) for c, name in zip(members, labels, strict=True) if keep[c] and name == label]
                lp += _sum(chosen, same) - variable == 0
    return lp, chosen


def _add_budget(
    lp: pulp.LpProblem, chosen: dict[int, pulp.LpVariable], problem: Problem, budget: Budget, keep: Mask
) -> None:
    row = row_of(problem, budget, keep)
    power = SLACK - _power(row.slack)
    terms = [(c, math.ldexp(float(row.extra[c]), power)) for c in chosen if row.extra[c] > 0]
    if terms:
        limit = row.slack + 0.5 if problem.column(budget.column).dtype.kind == "i" else row.slack * (1 + WIDENING)
        lp += _sum(chosen, terms) <= math.ldexp(limit, power)


def _sum(chosen: dict[int, pulp.LpVariable], terms: Sequence[tuple[int, float]]) -> pulp.LpAffineExpression:
    return pulp.LpAffineExpression([(chosen[c], weight) for c, weight in terms])


def _picks(problem: Problem, program: Program) -> Picks:
    """Return in each group the candidate whose variable is largest: integral up to the backend's tolerance."""
    value = np.full(problem.size, -np.inf)
    for candidate, variable in program.chosen.items():
        value[candidate] = variable.varValue or 0.0
    grid = problem.grid
    place = np.where(grid >= 0, value[grid], -np.inf).argmax(axis=1)
    return tuple(int(pick) for pick in grid[np.arange(len(grid)), place])


def _is_integral(program: Program) -> bool:
    values = np.array([variable.varValue or 0.0 for variable in program.chosen.values()])
    return bool((np.abs(values - values.round()) < INTEGRAL).all())


def _power(value: float) -> int:
    return math.frexp(value)[1]


def _exact(value: Number) -> int | Fraction:
    return value if isinstance(value, int) else Fraction(float(value) if isinstance(value, np.floating) else value)
