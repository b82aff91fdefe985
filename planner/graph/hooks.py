"""The hooks of a traced run: what each layer read, and each visit of a component from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from bitplan.planner.graph.flow import Mark, Marks
from bitplan.planner.graph.layers import ComponentRun, component_of
from bitplan.planner.graph.roles import LayerInputs
from bitplan.planner.graph.visits import ComponentCall, SeenTensor, classes_of, is_iterating, named_tensors, rows_of


@dataclass
class LayerRecord:
    """What one layer did during the run."""

    shapes: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = field(default_factory=dict)
    inputs: set[tuple[Any, ...]] = field(default_factory=set)
    feeders: set[str] = field(default_factory=set)
    use: LayerInputs = field(default_factory=LayerInputs)


@dataclass
class TraceHooks:
    """The hooks of a run, and what they saw: records by address, in order of first execution; visits by component."""

    marks: Marks = field(default_factory=Marks)
    records: dict[str, LayerRecord] = field(default_factory=dict)
    visits: dict[str, list[ComponentCall]] = field(default_factory=dict)
    depth: Counter[str] = field(default_factory=Counter)
    calling: list[str] = field(default_factory=list)

    def before(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = args[0] if args else kwargs["input"]
        record, mark = self.records.setdefault(address, LayerRecord()), self.marks.of(given)
        self.calling.append(address)
        if given.is_floating_point():  # row numbers are rounded by nobody, so that nobody must agree on them
            record.inputs.add(self.marks.identity(given))
        record.feeders |= mark.feeders
        record.use.attended |= mark.attended
        record.use.direct |= mark.direct
        record.use.sources |= mark.sources
        record.use.raw |= mark.raw
        record.use.positions |= given.dim() > 2 and any(size > 1 for size in given.shape[1:-1])
        component, place = component_of(address), f"@{address}"
        if all(owner != component for owner, _ in mark.sources):  # made inside, as from a Python number
            self.visits[component][-1].seen[place] = self._seen(given, mark, "")
            record.use.sources.add((component, place))

    def after(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: torch.Tensor) -> None:
        given = args[0] if args else kwargs["input"]
        self.calling.remove(address)
        record, mark = self.records[address], self.marks.of(out)
        key = tuple(given.shape), tuple(out.shape)
        record.shapes[key] = record.shapes.get(key, 0) + 1
        mark.feeders = mark.direct = frozenset({address})
        mark.sources |= {source for source in record.use.sources if source[1] == f"@{address}"}
        mark.pass_weights()

    def enter(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A module of a component is called. From outside, its arguments become the sources of what it computes."""
        component = component_of(address)
        self.depth[component] += 1
        if self.depth[component] > 1:
            return
        visit = ComponentCall(address)
        self.visits.setdefault(component, []).append(visit)
        named = (*enumerate(args), *kwargs.items())
        given = [pair for name, value in named for pair in named_tensors(str(name), value)]
        if address != component:  # a part: some of what it is given may come from other parts, with only it between
            given = [(place, tensor) for place, tensor in given if not self._is_inside(component, tensor)]
        marks = [self.marks.of(tensor) for _, tensor in given]
        for (place, tensor), mark in zip(given, marks, strict=True):
            visit.seen[place] = self._seen(tensor, mark, address)
        for mark in marks:
            mark.leave_component(component)
        for (place, _), mark in zip(given, marks, strict=True):
            mark.sources |= {(component, place)}
            mark.raw |= {(component, place)}

    def leave(self, address: str, out: Any) -> None:
        """The call is over. What it put out is known to be its, should it come back."""
        component = component_of(address)
        self.depth[component] -= 1
        if self.depth[component]:
            return
        for _, tensor in named_tensors("", out):
            mark = self.marks.of(tensor)
            self.visits[component][-1].results.append(tuple(tensor.shape))
            for layer in mark.direct & self.records.keys():
                self.records[layer].use.writes |= component_of(layer) == component
            mark.makers |= {address}

    def _is_inside(self, component: str, tensor: torch.Tensor) -> bool:
        direct = self.marks.of(tensor).direct
        return bool(direct) and all(component_of(layer) == component for layer in direct)

    def _seen(self, tensor: torch.Tensor, mark: Mark, reader: str) -> SeenTensor:
        rows = rows_of(tensor, self.marks.identity(tensor))
        return SeenTensor(tuple(tensor.shape), rows, reader in mark.makers, bool(mark.makers))


@contextmanager
def hooked(
    components: Mapping[str, nn.Module], found: Mapping[str, tuple[nn.Module, tuple[str, ...]]], watch: TraceHooks
) -> Iterator[None]:
    """Components are entered before, and left after, what is known of a layer that is called."""
    with ExitStack() as stack:
        modules = [
            (f"{component}.{path}" if path else component, module)
            for component, root in components.items()
            for path, module in root.named_modules()
        ]
        for address, module in modules:
            _hook(stack, module, before=partial(watch.enter, address))
        for address, (module, _) in found.items():
            _hook(stack, module, partial(watch.before, address), partial(watch.after, address))
        for address, module in modules:
            _hook(stack, module, after=lambda args, kwargs, out, address=address: watch.leave(address, out))
        yield


def _hook(
    stack: ExitStack, module: nn.Module, before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> None:  # fmt: skip
    if before:
        handle = module.register_forward_pre_hook(lambda _, args, kwargs: before(args, kwargs), with_kwargs=True)
        stack.callback(handle.remove)
    if after:
        handle = module.register_forward_hook(lambda _, args, kwargs, out: after(args, kwargs, out), with_kwargs=True)
        stack.callback(handle.remove)


def parts_of(components: Mapping[str, nn.Module], watch: TraceHooks) -> tuple[ComponentRun, ...]:
    """What each component did, in order of its first visit."""
    readers = Counter(source for record in watch.records.values() for source in record.use.sources)
    parts = []
    for name in dict.fromkeys((*watch.visits, *components)):
        visits = watch.visits.get(name, [])
        iterates = is_iterating(visits)
        classes = classes_of(visits, iterates, {place: n for (owner, place), n in readers.items() if owner == name})
        calls = sum(visit.module == name for visit in visits)
        parts.append(ComponentRun(name, calls, iterates, tuple(classes.items())))
    return tuple(parts)
