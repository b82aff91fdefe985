"""Brute force over every choice of a small problem, in exact arithmetic, and random problems to try it on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitplan.solvers.problem import Budget, Problem, Tie


def choices(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Every choice that is allowed and respects the ties."""
    for places in itertools.product(*(range(len(names)) for names in problem.candidates)):
        at = dict(zip(problem.groups, places, strict=True))
        tied = all(len({labels[at[group]] for group, labels in tie.labels.items()}) <= 1 for tie in problem.ties)
        flat = tuple(int(start) + place for start, place in zip(problem.offsets, places, strict=False))
        if tied and all(problem.allowed[pick] for pick in flat):
            yield flat


def total(problem: Problem, column: str, picks: tuple[int, ...]) -> Fraction:
    return sum((Fraction(problem.columns[column].tolist()[pick]) for pick in picks), Fraction(0))


def within(problem: Problem, picks: tuple[int, ...]) -> bool:
    return all(total(problem, budget.column, picks) <= Fraction(budget.limit) for budget in problem.budgets)


def objective(problem: Problem, picks: tuple[int, ...]) -> Fraction:
    return sum((Fraction(w) * total(problem, name, picks) for name, w in problem.objective.items()), Fraction(0))


def best(problem: Problem) -> Fraction | None:
    """The least objective of all choices within the budgets, None if there is none."""
    return min((objective(problem, picks) for picks in choices(problem) if within(problem, picks)), default=None)


@st.composite
def problems(draw: st.DrawFn, scales: tuple[float, ...] = (1.0,)) -> Problem:
    """Up to 6 groups of up to 4 candidates. Losses fall where costs rise, so that budgets bind; coarse numbers make
    equal candidates and zeros; limits are the exact sums of some choice or a hair off, so that zero slack is common."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = random.integers(1, 5, draw(st.integers(2, 6)))
    count, coarse = int(sizes.sum()), draw(st.booleans())
    cost = random.integers(0, 4 if coarse else 10**9, count)
    noise = random.integers(0, 3, (2, count)) / 2 if coarse else random.lognormal(0, 1, (2, count))
    losses = draw(st.sampled_from(scales)) * noise * (1.5 - cost / cost.max(initial=1))
    columns = {"bytes": cost, "ms": random.uniform(0, 1, count), "quality": losses[0], "alignment": losses[1]}
    groups = tuple(f"g{i}" for i in range(len(sizes)))
    problem = Problem(
        groups,
        tuple(tuple(f"c{j}" for j in range(size)) for size in sizes),
        columns,
        {"quality": 1.0, "alignment": draw(st.sampled_from([0.0, 0.5]))},
        ties=tuple(_tie(random, groups, sizes) for _ in range(draw(st.integers(0, 2)))),
        allowed=random.random(count) < draw(st.sampled_from([1.0, 0.9])),
    )
    return replace(problem, budgets=_budgets(draw, random, problem))


def _tie(random: np.random.Generator, groups: tuple[str, ...], sizes: NDArray[np.int64]) -> Tie:
    members = random.permutation(len(groups))[: random.integers(1, 4)]
    return Tie({groups[i]: tuple(random.choice(["a", "b"], sizes[i])) for i in members})


def _budgets(draw: st.DrawFn, random: np.random.Generator, problem: Problem) -> tuple[Budget, ...]:
    budgets, possible = [], list(choices(problem))
    for column in draw(st.lists(st.sampled_from(["bytes", "ms", "alignment"]), min_size=1, unique=True)):
        if not possible:
            break
        some = random.integers(0, len(possible), 6)
        limit = sorted(total(problem, column, possible[i]) for i in some)[1]
        off = Fraction(draw(st.sampled_from([-1, 0, 0, 1])), 1 if column == "bytes" else 10**9)
        budgets.append(Budget(column, limit + off if column == "bytes" else limit * (1 + off)))
    return tuple(budgets)
