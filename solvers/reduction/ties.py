"""Ties: which groups they connect, and which candidates remain under every labelling of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Mask, Problem, ProblemError

MOST_LABELLINGS = 20_000


@dataclass(frozen=True)
class Bundle:
    """A connected component of groups under ties.

    Attributes:
        places: the places of its groups in `Problem.groups`, in order.
        ties: the indices of its ties.
    """

    places: tuple[int, ...]
    ties: tuple[int, ...]


def bundles(problem: Problem) -> tuple[Bundle, ...]:
    """Return every bundle, in the order of their first groups; an untied group is a bundle by itself."""
    parent = list(range(len(problem.groups)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    ties = [[problem.positions[group] for group in tie.labels] for tie in problem.ties]
    for first, *others in filter(None, ties):
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    members: dict[int, list[int]] = {}
    for place in range(len(parent)):
        members.setdefault(root(place), []).append(place)
    tie_numbers: dict[int, list[int]] = {}
    for number, places in enumerate(ties):
        if places:
            tie_numbers.setdefault(root(places[0]), []).append(number)
    return tuple(Bundle(tuple(places), tuple(tie_numbers.get(first, ()))) for first, places in members.items())


def signatures(problem: Problem) -> NDArray[np.int64]:
    """Return (C,) numbers: equal for two candidates of a group exactly where every tie gives them the same label."""
    labels_of: list[tuple[str, ...]] = [()] * problem.size
    for tie in problem.ties:
        for group, labels in tie.labels.items():
            for candidate, label in zip(problem.members(problem.positions[group]), labels, strict=True):
                labels_of[candidate] += (label,)
    numbers = {labels: number for number, labels in enumerate(dict.fromkeys(labels_of))}
    return np.array([numbers[labels] for labels in labels_of], dtype=np.int64)


def labellings(problem: Problem, bundle: Bundle, keep: Mask) -> Iterator[list[NDArray[np.int64]]]:
    """Yield, for every labelling of the bundle's ties, the kept candidates of each group; skip those that leave none.

    Raises ProblemError where overlapping ties have more than MOST_LABELLINGS labellings.
    """
    members = {place: [c for c in problem.members(place) if keep[c]] for place in bundle.places}
    ties = [_labels_of(problem, number) for number in bundle.ties]
    for count, choice in enumerate(_restrict(ties, members)):
        if count == MOST_LABELLINGS:
            first = repr(problem.groups[bundle.places[0]])
            raise ProblemError(f"ties around group {first} have over {MOST_LABELLINGS} labellings; use fewer ties")
        yield [np.array(choice[place], dtype=np.int64) for place in bundle.places]


def _labels_of(problem: Problem, number: int) -> dict[int, dict[int, str]]:
    """Return group place -> candidate -> label."""
    tie = problem.ties[number]
    places = {group: problem.positions[group] for group in tie.labels}
    return {places[g]: dict(zip(problem.members(places[g]), labels, strict=True)) for g, labels in tie.labels.items()}


def _restrict(ties: list[dict[int, dict[int, str]]], members: dict[int, list[int]]) -> Iterator[dict[int, list[int]]]:
    """Yield the candidates that remain under every labelling of the ties, one tie after the other."""
    if not all(members.values()):
        return
    if not ties:
        yield members
        return
    tie, *others = ties
    shortest = min(tie, key=lambda place: len(members[place]))
    for label in dict.fromkeys(tie[shortest][c] for c in members[shortest]):
        same = {place: [c for c in members[place] if labels[c] == label] for place, labels in tie.items()}
        yield from _restrict(others, {**members, **same})
