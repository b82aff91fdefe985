"""Re-check a choice in exact arithmetic. Shares no code with what finds choices, so that no error is in both."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from solvers.problem import Picks, Problem


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
    values = problem.column(column)
    return sum((Fraction(values[pick].item()) for pick in picks), Fraction(0))


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
