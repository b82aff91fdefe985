"""Ties as arrays: which groups hang together, and what is left of them under every way to label their ties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Mask, Problem, ProblemError

MOST_LABELLINGS = 20_000


@dataclass(frozen=True)
class Bundle:
    """Groups that ties connect, directly or by way of others: their places in order, and their ties' numbers."""

    places: tuple[int, ...]
    ties: tuple[int, ...]


def bundles(problem: Problem) -> tuple[Bundle, ...]:
    """Every bundle of the problem, in order of first groups; an untied group is a bundle of its own."""
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
    bound: dict[int, list[int]] = {}
    for number, places in enumerate(ties):
        if places:
            bound.setdefault(root(places[0]), []).append(number)
    return tuple(Bundle(tuple(places), tuple(bound.get(first, ()))) for first, places in members.items())


def signatures(problem: Problem) -> NDArray[np.int64]:
    """(C,): two candidates of one group have the same number where every tie gives them the same label."""
    words: list[tuple[str, ...]] = [()] * problem.size
    for tie in problem.ties:
        for group, labels in tie.labels.items():
            for candidate, label in zip(problem.members(problem.positions[group]), labels, strict=True):
                words[candidate] += (label,)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return np.array([numbers[word] for word in words], dtype=np.int64)


def labellings(problem: Problem, bundle: Bundle, keep: Mask) -> Iterator[list[NDArray[np.int64]]]:
    """Every way to label the ties of a bundle that leaves each group a kept candidate: what is left, group by group.

    Raises ProblemError where overlapping ties admit more than MOST_LABELLINGS ways.
    """
    left = {place: [c for c in problem.members(place) if keep[c]] for place in bundle.places}
    ties = [_of_tie(problem, number) for number in bundle.ties]
    for count, choice in enumerate(_label(ties, left)):
        if count == MOST_LABELLINGS:
            first = problem.groups[bundle.places[0]]
            raise ProblemError(f"ties around group {first!r} overlap in over {MOST_LABELLINGS} ways; use fewer ties")
        yield [np.array(choice[place], dtype=np.int64) for place in bundle.places]


def _of_tie(problem: Problem, number: int) -> dict[int, dict[int, str]]:
    """Group place -> candidate -> label."""
    tie = problem.ties[number]
    places = {group: problem.positions[group] for group in tie.labels}
    return {places[g]: dict(zip(problem.members(places[g]), labels, strict=True)) for g, labels in tie.labels.items()}


def _label(ties: list[dict[int, dict[int, str]]], left: dict[int, list[int]]) -> Iterator[dict[int, list[int]]]:
    if not all(left.values()):
        return
    if not ties:
        yield left
        return
    tie, *others = ties
    shortest = min(tie, key=lambda place: len(left[place]))
    for label in dict.fromkeys(tie[shortest][c] for c in left[shortest]):
        kept = {place: [c for c in left[place] if labels[c] == label] for place, labels in tie.items()}
        yield from _label(others, {**left, **kept})
