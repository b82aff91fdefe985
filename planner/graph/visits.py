"""Classifies the inputs of a component by its visits, which are its calls from outside.

A component *iterates* if a visit reads an output of an earlier visit of the same module, in an argument whose shape
(without the batch) is that of the first visit: the state of a sampler keeps its shape, the text of a language model
grows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bitplan.planner.graph.layers import CONDITION, STATE, TIME

_MOST_ROWS = 64  # a longer first dimension is not a batch


@dataclass(frozen=True)
class InputTensor:
    """One input tensor of a visit.

    Attributes:
        shape: its shape.
        rows: digests of its rows along the first dimension.
        own: whether it was computed from the result of an earlier visit.
        computed: whether it was computed from the result of any module.
    """

    shape: tuple[int, ...]
    rows: frozenset[bytes]
    own: bool
    computed: bool


@dataclass
class ComponentCall:
    """One visit: a call of a module of a component while no other module of that component runs.

    Attributes:
        module: address of the module.
        inputs: place -> input tensor.
        results: shapes of the results.
    """

    module: str
    inputs: dict[str, InputTensor] = field(default_factory=dict)
    results: list[tuple[int, ...]] = field(default_factory=list)


def named_tensors(place: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in an argument or a result, each with its place: the argument's name, then keys or indices."""
    if isinstance(value, torch.Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from named_tensors(f"{place}.{key}", part)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from named_tensors(f"{place}.{number}", part)


def rows_of(tensor: torch.Tensor, identity: object) -> frozenset[bytes]:
    """Digests of the rows of a tensor, or one digest if it has no batch.

    identity: replaces the values of a tensor on the meta device.
    """
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
    """Whether a module reads one of its earlier outputs, in the shape of its first input."""
    return any(
        tensor.own and place in group[0].inputs and tensor.shape[1:] == group[0].inputs[place].shape[1:]
        for group in _by_module(visits)
        for visit in group
        for place, tensor in visit.inputs.items()
    )


def classes_of(visits: Sequence[ComponentCall], iterates: bool, readers: Mapping[str, int]) -> dict[str, str]:
    """Place -> `state`, `time` or `condition`, for all arguments of a component's visits.

    Consecutive visits with the same state are one step of the sampler, as for guidance by two calls. Arguments that are
    equal in all steps, or hold fewer of the same rows (guidance that ends early), are conditions; those that change are
    times. If a component does not iterate or made one step only, the state is the argument with the shape of a result
    up to one axis, else the one that most layers read; an argument with one number a sample that no module computed is
    a time; all others are conditions. Constants from inside (`@` places) have no class.

    Args:
        visits: the visits of a component.
        iterates: whether it iterates.
        readers: place -> number of layers that read it.
    """
    classes: dict[str, str] = {}
    for group in _by_module(visits):
        places = dict.fromkeys(place for visit in group for place in visit.inputs)
        own = {place for visit in group for place, tensor in visit.inputs.items() if tensor.own}
        state = own if iterates else set()
        if not state and not (iterates and group[0].module != visits[0].module):
            state = _likely_state(group, [place for place in places if not place.startswith("@")], readers)
        steps = _steps(group, state)
        for place in places:
            kind = STATE if place in state else _kind(place, group, steps, iterates)
            if kind:
                classes[place] = kind
    return classes


def _kind(
    place: str, group: Sequence[ComponentCall], steps: Sequence[Sequence[ComponentCall]], iterates: bool
) -> str | None:
    rows = [frozenset[bytes]().union(*(v.inputs[place].rows for v in step if place in v.inputs)) for step in steps]
    widest = max(rows, key=len)
    changes = any(not each <= widest for each in rows)
    if place.startswith("@"):
        return TIME if changes else None
    if iterates and len(steps) > 1:
        return TIME if changes else CONDITION
    tensor = next(visit.inputs[place] for visit in group if place in visit.inputs)
    single = all(size == 1 for size in tensor.shape[1:])
    return TIME if single and not tensor.computed else CONDITION


def _likely_state(group: Sequence[ComponentCall], places: Iterable[str], readers: Mapping[str, int]) -> set[str]:
    results = {shape for visit in group for shape in visit.results}
    for place in places:
        shapes = {visit.inputs[place].shape for visit in group if place in visit.inputs}
        if any(_alike(shape, result) for shape in shapes for result in results):
            return {place}
    ranked = Counter({place: readers.get(place, 0) for place in places})
    return {place for place, _ in ranked.most_common(1)}


def _alike(shape: tuple[int, ...], result: tuple[int, ...]) -> bool:
    return len(shape) == len(result) >= 3 and sum(a != b for a, b in zip(shape, result, strict=True)) <= 1


def _steps(group: Sequence[ComponentCall], state: set[str]) -> list[list[ComponentCall]]:
    steps: list[list[ComponentCall]] = []
    for visit in group:
        before = steps[-1][-1].inputs if steps else {}
        same = any(p in visit.inputs and p in before and visit.inputs[p].rows == before[p].rows for p in state)
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
