"""Check a choice in exact arithmetic. This file shares no code with any solver, so that no error is in both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bitplan.solvers.problem import Picks, Problem, ProblemError


@dataclass(frozen=True)
class Violation:
    """One rule that a choice breaks.

    Attributes:
        kind: `shape`, `allowed`, `tie` or `budget`.
        place: the index of the group, tie or budget.
        sentence: the violation in words.
        excess: the exact amount by which a budget is exceeded.
    """

    kind: str
    place: int
    sentence: str
    excess: Fraction = Fraction(0)


def violations(problem: Problem, picks: Picks) -> tuple[Violation, ...]:
    """Return every rule of the problem that the choice breaks; an empty result certifies the choice."""
    if len(picks) != len(problem.groups):
        sentence = f"{len(picks)} choices for {len(problem.groups)} groups"
        return (Violation("shape", 0, sentence),)
    broken: list[Violation] = []
    start = 0
    places = {}
    for number, (group, names) in enumerate(zip(problem.groups, problem.candidates, strict=True)):
        place = picks[number] - start
        start += len(names)
        if not 0 <= place < len(names):
            return (Violation("shape", number, f"choice {picks[number]} is not a candidate of group {group!r}"),)
        places[group] = place
        if not problem.allowed[picks[number]]:
            broken.append(Violation("allowed", number, f"{names[place]!r} is not allowed in group {group!r}"))
    return (*broken, *_broken_ties(problem, places), *_broken_budgets(problem, picks))


def exact_total(problem: Problem, column: str, picks: Picks) -> Fraction:
    """Return the sum of a column over the choice without rounding; it can serve as the limit of a budget."""
    ratios = [value.as_integer_ratio() for value in problem.column(column)[list(picks)].tolist()]
    most = max((denominator for _, denominator in ratios), default=1)  # powers of two: each divides the largest
    return Fraction(sum(numerator * (most // denominator) for numerator, denominator in ratios), most)


def lower_bound(problem: Problem, prices: Sequence[float]) -> Fraction:
    """Return a lower bound on the objective of every choice by weak duality, without rounding.

    Each set of groups that ties connect contributes its least sum with prices over all labellings of its ties. Raises
    ProblemError unless there is one finite price >= 0 for each budget, or where ties leave no choice.
    """
    if len(prices) != len(problem.budgets) or not all(0 <= price < math.inf for price in prices):
        raise ProblemError(f"prices are {list(prices)}; expected {len(problem.budgets)} finite numbers >= 0")
    terms = [(Fraction(weight), name) for name, weight in problem.objective.items() if weight]
    terms += [(Fraction(price), budget.column) for price, budget in zip(prices, problem.budgets, strict=True) if price]
    columns = {name: problem.column(name).tolist() for _, name in terms}
    priced = [sum((w * Fraction(columns[name][c]) for w, name in terms), Fraction(0)) for c in range(problem.size)]
    spent = sum((Fraction(p) * Fraction(b.limit) for p, b in zip(prices, problem.budgets, strict=True)), Fraction(0))
    return sum((_least(problem, groups, priced) for groups in _connected(problem)), Fraction(0)) - spent


def _connected(problem: Problem) -> list[set[str]]:
    """Return the connected components of the groups under ties."""
    sets: dict[str, set[str]] = {group: {group} for group in problem.groups}
    for tie in problem.ties:
        joined = set().union(*(sets[group] for group in tie.labels))
        sets.update(dict.fromkeys(joined, joined))
    return list({id(groups): groups for groups in sets.values()}.values())


def _least(problem: Problem, groups: set[str], priced: list[Fraction]) -> Fraction:
    """Return the least sum of the groups over all labellings of their ties. priced: (C,) objectives with prices."""
    ties = [tie.labels for tie in problem.ties if groups & set(tie.labels)]
    names = [sorted({label for labels in tie.values() for label in labels}) for tie in ties]
    best: Fraction | None = None
    for labelling in itertools.product(*names):
        total = Fraction(0)
        for group in groups:
            rules = [(tie[group], label) for tie, label in zip(ties, labelling, strict=True) if group in tie]
            flat = problem.members(problem.positions[group])
            values = [priced[c] for i, c in enumerate(flat)
                    if problem.allowed[c] and all(labels[i] == label for labels, label in rules)]  # fmt: skip
            if not values:
                break
            total += min(values)
        else:
            best = total if best is None else min(best, total)
    if best is None:
        raise ProblemError(f"ties and allowed candidates leave no choice around group {min(groups)!r}")
    return best


def _broken_ties(problem: Problem, places: dict[str, int]) -> list[Violation]:
    broken = []
    for number, tie in enumerate(problem.ties):
        label = {group: labels[places[group]] for group, labels in tie.labels.items()}
        if len(set(label.values())) > 1:
            first, *others = label
            other = next(group for group in others if label[group] != label[first])
            sentence = f"tied groups {first!r} and {other!r} differ: {label[first]!r} and {label[other]!r}"
            broken.append(Violation("tie", number, sentence))
    return broken


def _broken_budgets(problem: Problem, picks: Picks) -> list[Violation]:
    broken = []
    for number, budget in enumerate(problem.budgets):
        total, limit = exact_total(problem, budget.column, picks), Fraction(budget.limit)
        if total > limit:
            sentence = f"{budget.column} is {float(total):.12g}, {float(total - limit):.6g} above {float(limit):.12g}"
            broken.append(Violation("budget", number, sentence, total - limit))
    return broken
