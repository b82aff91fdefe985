"""Finds which layers run on which conditions, and measures the ranges of their inputs on all of them.

A run may choose experts by its condition or its time step, stop early, or skip layers. Conditions run in batches as in
a measurement. Where the calls in a batch are not those of the first condition for each of its conditions, each
condition runs alone once, which tells its calls exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

from torch import nn

from bitplan.planner.graph.layers import Layer, LayerCall, LayerGraph, component_of
from bitplan.planner.graph.trace import list_layers
from bitplan.planner.pipelines.calling import has_own_calls
from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.plans.kinds import KINDS
from bitplan.sensitivity.calibration.ranges import ActivationRange, calibrate
from bitplan.sensitivity.probes.shares import hooked

BATCH = 16  # conditions a run
SHAPES = 8  # shapes of calls that are kept of a layer whose calls differ between conditions
Shapes = Counter[tuple[tuple[int, ...], tuple[int, ...]]]  # (input, output) shape -> calls
Calls = Mapping[str, Shapes]  # layer -> its calls on at least one number


@dataclass(frozen=True, eq=False)
class Coverage:
    """The calls and inputs of layers on all conditions.

    Attributes:
        ranges: layer -> the range of its input.
        alone: of each condition, its calls; empty where all conditions call the same layers equally often.
    """

    ranges: Mapping[str, ActivationRange]
    alone: Sequence[Calls] = ()


def cover(
    subject: Subject, conditions: Sequence[Any], seed: int, traced: LayerGraph, planned: Collection[str], most: int
) -> Coverage:  # fmt: skip
    """Runs all conditions in full precision.

    Args:
        subject: what runs.
        conditions: its conditions; condition i has the noise of seed + i.
        seed: of the first condition.
        traced: the graph of the first condition alone.
        planned: components of whose layers the ranges are measured.
        most: the number of conditions of a run.
    """
    barred = dict(traced.reasons)
    listed = {name: own for name, own in list_layers(subject.modules).layers.items() if name not in barred}
    modules = {name: module for name, (module, _) in listed.items()}
    observed = {name: modules[name] for name, (_, others) in listed.items() if _is_of(planned, name, *others)}
    first = {layer.address: Counter({(c.input, c.output): c.count for c in layer.calls}) for layer in traced.layers}
    run = partial(_in_batches, subject, conditions, seed, modules)
    size = 1 if has_own_calls(subject.run) else most
    batches: list[tuple[int, Calls]] = []
    ranges = calibrate(observed, lambda: batches.extend(run(size)))
    if all(_even(first.get(name, Shapes()), calls[name], some) for some, calls in batches for name in modules):
        return Coverage(ranges)
    return Coverage(ranges, [calls for _, calls in (batches if size == 1 else run(1))])


def _is_of(components: Collection[str], *addresses: str) -> bool:
    return any(component_of(address) in components for address in addresses)


def _in_batches(
    subject: Subject, conditions: Sequence[Any], seed: int, modules: Mapping[str, nn.Module], size: int
) -> Iterator[tuple[int, Calls]]:
    """Runs `size` conditions at a time, and yields the number and the calls of each batch."""
    for start in range(0, len(conditions), size):
        some = conditions[start : start + size]
        with counted(modules) as calls:
            run_subject(subject, some, seed + start)
        yield len(some), calls


@contextmanager
def counted(modules: Mapping[str, nn.Module]) -> Iterator[Calls]:
    """Within the `with`, counts the calls of modules on at least one number."""
    calls: dict[str, Shapes] = {name: Counter() for name in modules}

    def count(name: str, x: Any, output: Any) -> None:
        if x.numel():
            calls[name][tuple(x.shape), tuple(output.shape)] += 1

    with hooked(modules, count):
        yield calls


def _even(one: Shapes, batch: Shapes, size: int) -> bool:
    """Whether a batch of conditions makes the calls of one condition: as many, on the rows of all or on one row for
    all, or those of each condition."""
    (calls, rows), (more, wide) = _size(one), _size(batch)
    return (more == calls and wide in (rows, size * rows)) or (more == size * calls and wide == size * rows)


def _size(shapes: Shapes) -> tuple[int, int]:
    """The number of calls, and of rows in all of them."""
    return shapes.total(), sum(count * (x[0] if x else 1) for (x, _), count in shapes.items())


def weighed(layer: Layer, alone: Sequence[Calls], name: str) -> Layer:
    """The layer with its calls in all conditions, unless each makes as many as the others.

    name: the layer's name in `alone`.
    """
    own = [calls[name] for calls in alone]
    if len({shapes.total() for shapes in own}) < 2:
        return layer
    total: Shapes = sum(own, Shapes())
    calls = tuple(
        LayerCall(x, out, KINDS[layer.kind].macs(layer.weight, prod(out)), count)
        for (x, out), count in _fewer(total).items()
    )
    return replace(layer, calls=calls, runs=len(own), reached=sum(bool(shapes) for shapes in own))


def _fewer(shapes: Shapes) -> Shapes:
    """At most `SHAPES` shapes, the most common, for as many calls; the others count as the next larger one, else as the
    largest."""
    kept = sorted((shape for shape, _ in shapes.most_common(SHAPES)), key=lambda shape: prod(shape[0]))
    fewer: Shapes = Counter()
    for shape, count in shapes.items():
        fewer[next((each for each in kept if prod(each[0]) >= prod(shape[0])), kept[-1])] += count
    return fewer


def is_irregular(alone: Sequence[Calls], names: Sequence[str]) -> bool:
    """Whether conditions differ in the rows of some of the layers, so that no batch tells its samples apart."""
    return any(len({_size(calls[name]) for calls in alone}) > 1 for name in names)
