"""Re-check a choice in exact arithmetic. Shares no code with what finds choices, so that no error is in both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bitplan.solvers.problem import Picks, Problem, ProblemError


@dataclass(frozen=True)
class Violation:
    """One rule that a choice breaks. kind: `shape`, `allowed`, `tie` or `budget`; place: index of the tie or budget;
    excess: by how much a budget is exceeded, exactly."""

    kind: str
    place: int
    sentence: str
    excess: Fraction = Fraction(0)


def violations(problem: Problem, picks: Picks) -> tuple[Violation, ...]:
    """Every rule of the problem that the choice breaks; none means that it is right. picks: a flat index per group."""
    if len(picks) != len(problem.groups):
        sentence = f"{len(picks)} choices for {len(problem.groups)} groups"
        return (Violation("shape", 0, sentence),)
    found: list[Violation] = []
    start = 0
    places = {}
    for number, (group, names) in enumerate(zip(problem.groups, problem.candidates, strict=True)):
        place = picks[number] - start
        start += len(names)
        if not 0 <= place < len(names):
            return (Violation("shape", number, f"choice {picks[number]} is no candidate of group {group!r}"),)
        places[group] = place
        if not problem.allowed[picks[number]]:
            found.append(Violation("allowed", number, f"{names[place]!r} is not allowed in group {group!r}"))
    return (*found, *_broken_ties(problem, places), *_broken_budgets(problem, picks))


def exact_total(problem: Problem, column: str, picks: Picks) -> Fraction:
    """The sum of a column over the choice, without any rounding; usable as a budget's limit."""
    ratios = [value.as_integer_ratio() for value in problem.column(column)[list(picks)].tolist()]
    most = max((denominator for _, denominator in ratios), default=1)  # powers of two: each divides the largest
    return Fraction(sum(numerator * (most // denominator) for numerator, denominator in ratios), most)


def lower_bound(problem: Problem, prices: Sequence[float]) -> Fraction:
    """What no choice's objective is below, by weak duality, without any rounding. prices: one >= 0 for each budget.

    Every set of groups that ties connect takes, over all ways to label its ties, the least priced sum. Raises
    ProblemError for prices that prove nothing, or where ties leave no choice.
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
    """The groups in sets that no tie crosses."""
    sets: dict[str, set[str]] = {group: {group} for group in problem.groups}
    for tie in problem.ties:
        joined = set().union(*(sets[group] for group in tie.labels))
        sets.update(dict.fromkeys(joined, joined))
    return list({id(found): found for found in sets.values()}.values())


def _least(problem: Problem, groups: set[str], priced: list[Fraction]) -> Fraction:
    ties = [tie.labels for tie in problem.ties if groups & set(tie.labels)]
    words = [sorted({word for labels in tie.values() for word in labels}) for tie in ties]
    best: Fraction | None = None
    for labelling in itertools.product(*words):
        total = Fraction(0)
        for group in groups:
            rules = [(tie[group], word) for tie, word in zip(ties, labelling, strict=True) if group in tie]
            flat = problem.members(problem.positions[group])
            left = [priced[c] for i, c in enumerate(flat)
                    if problem.allowed[c] and all(labels[i] == word for labels, word in rules)]  # fmt: skip
            if not left:
                break
            total += min(left)
        else:
            best = total if best is None else min(best, total)
    if best is None:
        raise ProblemError(f"ties and allowed candidates leave no choice around group {min(groups)!r}")
    return best


def _broken_ties(problem: Problem, places: dict[str, int]) -> list[Violation]:
    found = []
    for number, tie in enumerate(problem.ties):
        taken = {group: labels[places[group]] for group, labels in tie.labels.items()}
        if len(set(taken.values())) > 1:
            first, *others = taken
            other = next(group for group in others if taken[group] != taken[first])
            sentence = f"tied groups {first!r} and {other!r} differ: {taken[first]!r} and {taken[other]!r}"
            found.append(Violation("tie", number, sentence))
    return found


def _broken_budgets(problem: Problem, picks: Picks) -> list[Violation]:
    found = []
    for number, budget in enumerate(problem.budgets):
        total, limit = exact_total(problem, budget.column, picks), Fraction(budget.limit)
        if total > limit:
            sentence = f"{budget.column} is {float(total):.12g}, {float(total - limit):.6g} above {float(limit):.12g}"
            found.append(Violation("budget", number, sentence, total - limit))
    return found
