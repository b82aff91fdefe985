"""Visits: each call of a component from outside, what its arguments hold, and what the visits together tell of them.

A component *iterates* where a visit reads what an earlier visit of the same module put out, in an argument of the shape
(batch apart) that it had in the first visit: a sampler's state keeps its shape, the text of a language model grows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bitplan.planner.graph.layers import CONDITION, STATE, TIME

_MOST_ROWS = 64  # a first dimension longer than this is no batch


@dataclass(frozen=True)
class SeenTensor:
    """One tensor that a visit was given. rows: digests of what it holds along its first dimension; own: whether an
    earlier visit's result is in it; made: whether any module's is."""

    shape: tuple[int, ...]
    rows: frozenset[bytes]
    own: bool
    made: bool


@dataclass
class ComponentCall:
    """One call of a module of a component while no other of that component ran. seen: by place; results: shapes."""

    module: str
    seen: dict[str, SeenTensor] = field(default_factory=dict)
    results: list[tuple[int, ...]] = field(default_factory=list)


def named_tensors(place: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in an argument or a result, each with its place: the argument's name, then keys or numbers."""
    if isinstance(value, torch.Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from named_tensors(f"{place}.{key}", part)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from named_tensors(f"{place}.{number}", part)


def rows_of(tensor: torch.Tensor, identity: object) -> frozenset[bytes]:
    """Digests of the rows of a tensor, or of the whole of one without a batch; of its identity where it holds no
    values (on the meta device)."""
    if tensor.is_meta:
        return frozenset({repr(identity).encode()})
    values = tensor.detach().cpu().contiguous()
    if values.is_complex():
        values = torch.view_as_real(values)
    batched = values.dim() and 0 < len(values) <= _MOST_ROWS
    return frozenset(_digest(row) for row in (values if batched else [values]))


def _digest(values: torch.Tensor) -> bytes:
    return hashlib.sha1(values.reshape(-1).view(torch.uint8).numpy().data, usedforsecurity=False).digest()


def is_iterating(visits: Sequence[ComponentCall]) -> bool:
    """Whether some module among the visited reads back what it put out before, in the shape that it began with."""
    return any(
        seen.own and place in group[0].seen and seen.shape[1:] == group[0].seen[place].shape[1:]
        for group in _by_module(visits)
        for visit in group
        for place, seen in visit.seen.items()
    )


def classes_of(visits: Sequence[ComponentCall], iterates: bool, readers: Mapping[str, int]) -> dict[str, str]:
    """Place -> `state`, `time` or `condition`, for all arguments of a component's visits.

    Visits in a row that have a state argument in common make one step of the sampler, as where guidance calls twice.
    Condition is what all steps read alike, or less of (guidance that ends early); time is what changes between them.
    A component that does not iterate, or made one step only, does not tell: its state is the argument of a result's
    shape, one axis apart, else the one that most layers read (readers: place -> how many); time is a number an example
    that no module made; all else is condition. Constants from inside (`@` places) are of no class.
    """
    found: dict[str, str] = {}
    for group in _by_module(visits):
        places = dict.fromkeys(place for visit in group for place in visit.seen)
        state = {place for visit in group for place, seen in visit.seen.items() if seen.own} if iterates else set()
        if not state and not (iterates and group[0].module != visits[0].module):
            state = _likely_state(group, [place for place in places if not place.startswith("@")], readers)
        steps = _steps(group, state)
        for place in places:
            kind = STATE if place in state else _kind(place, group, steps, iterates)
            if kind:
                found[place] = kind
    return found


def _kind(
    place: str, group: Sequence[ComponentCall], steps: Sequence[Sequence[ComponentCall]], iterates: bool
) -> str | None:
    rows = [frozenset[bytes]().union(*(v.seen[place].rows for v in step if place in v.seen)) for step in steps]
    widest = max(rows, key=len)
    changes = any(not each <= widest for each in rows)
    if place.startswith("@"):
        return TIME if changes else None
    if iterates and len(steps) > 1:
        return TIME if changes else CONDITION
    seen = next(visit.seen[place] for visit in group if place in visit.seen)
    single = all(size == 1 for size in seen.shape[1:])
    return TIME if single and not seen.made else CONDITION


def _likely_state(group: Sequence[ComponentCall], places: Iterable[str], readers: Mapping[str, int]) -> set[str]:
    results = {shape for visit in group for shape in visit.results}
    for place in places:
        shapes = {visit.seen[place].shape for visit in group if place in visit.seen}
        if any(_alike(shape, result) for shape in shapes for result in results):
            return {place}
    ranked = Counter({place: readers.get(place, 0) for place in places})
    return {place for place, _ in ranked.most_common(1)}


def _alike(shape: tuple[int, ...], result: tuple[int, ...]) -> bool:
    return len(shape) == len(result) >= 3 and sum(a != b for a, b in zip(shape, result, strict=True)) <= 1


def _steps(group: Sequence[ComponentCall], state: set[str]) -> list[list[ComponentCall]]:
    steps: list[list[ComponentCall]] = []
    for visit in group:
        before = steps[-1][-1].seen if steps else {}
        same = any(p in visit.seen and p in before and visit.seen[p].rows == before[p].rows for p in state)
        if steps and (same or not state):
            steps[-1].append(visit)
        else:
            steps.append([visit])
    return steps


def _by_module(visits: Sequence[ComponentCall]) -> list[list[ComponentCall]]:
    groups: dict[str, list[ComponentCall]] = {}
    for visit in visits:
        groups.setdefault(visit.module, []).append(visit)
    return list(groups.values())
