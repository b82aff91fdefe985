"""The hooks of a traced run record the inputs of each layer and each call of a component from outside."""

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
from bitplan.planner.graph.visits import ComponentCall, InputTensor, classes_of, is_iterating, named_tensors, rows_of


@dataclass
class LayerRecord:
    """What one layer did during the run.

    Attributes:
        shapes: (input shape, output shape) -> number of calls.
        inputs: keys of the tensors that it read (`Marks.identity`).
        feeders: the layers that its inputs were computed from.
        use: what its role depends on.
    """

    shapes: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = field(default_factory=dict)
    inputs: set[tuple[Any, ...]] = field(default_factory=set)
    feeders: set[str] = field(default_factory=set)
    use: LayerInputs = field(default_factory=LayerInputs)


@dataclass
class TraceHooks:
    """The hooks of a run and their records.

    Attributes:
        marks: the marks of the data flow.
        records: address -> record, in order of first execution.
        visits: component -> its calls from outside.
        depth: component -> number of its modules that are being called.
        calling: the layers that are being called.
    """

    marks: Marks = field(default_factory=Marks)
    records: dict[str, LayerRecord] = field(default_factory=dict)
    visits: dict[str, list[ComponentCall]] = field(default_factory=dict)
    depth: Counter[str] = field(default_factory=Counter)
    calling: list[str] = field(default_factory=list)

    def before(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A layer is called."""
        x = args[0] if args else kwargs["input"]
        record, mark = self.records.setdefault(address, LayerRecord()), self.marks.of(x)
        self.calling.append(address)
        if x.is_floating_point():  # row numbers are not rounded, so layers need not agree on them
            record.inputs.add(self.marks.identity(x))
        record.feeders |= mark.feeders
        record.use.attended |= mark.attended
        record.use.direct |= mark.direct
        record.use.sources |= mark.sources
        record.use.raw |= mark.raw
        record.use.positions |= x.dim() > 2 and any(size > 1 for size in x.shape[1:-1])
        component, place = component_of(address), f"@{address}"
        if all(owner != component for owner, _ in mark.sources):  # computed inside, such as from a Python number
            self.visits[component][-1].inputs[place] = self._input(x, mark, "")
            record.use.sources.add((component, place))

    def after(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: torch.Tensor) -> None:
        """The call of a layer ends."""
        x = args[0] if args else kwargs["input"]
        self.calling.remove(address)
        record, mark = self.records[address], self.marks.of(out)
        key = tuple(x.shape), tuple(out.shape)
        if x.numel():
            record.shapes[key] = record.shapes.get(key, 0) + 1
        mark.feeders = mark.direct = frozenset({address})
        mark.sources |= {source for source in record.use.sources if source[1] == f"@{address}"}
        mark.pass_weights()

    def forget_empty(self) -> None:
        """Drop the records of layers that were called on no number, such as experts without rows."""
        empty = {name for name, record in self.records.items() if not record.shapes}
        self.records = {name: record for name, record in self.records.items() if name not in empty}
        for record in self.records.values():
            record.feeders -= empty

    def enter(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A module of a component is called. In a call from outside, its arguments become sources."""
        component = component_of(address)
        self.depth[component] += 1
        if self.depth[component] > 1:
            return
        visit = ComponentCall(address)
        self.visits.setdefault(component, []).append(visit)
        named = (*enumerate(args), *kwargs.items())
        inputs = [pair for name, value in named for pair in named_tensors(str(name), value)]
        if address != component:  # a part: other parts of the component may have computed some of its inputs
            inputs = [(place, tensor) for place, tensor in inputs if not self._is_inside(component, tensor)]
        marks = [self.marks.of(tensor) for _, tensor in inputs]
        for (place, tensor), mark in zip(inputs, marks, strict=True):
            visit.inputs[place] = self._input(tensor, mark, address)
        for mark in marks:
            mark.leave_component(component)
        for (place, _), mark in zip(inputs, marks, strict=True):
            mark.sources |= {(component, place)}
            mark.raw |= {(component, place)}

    def leave(self, address: str, out: Any) -> None:
        """The call of a module of a component ends. Its outputs are marked for later calls."""
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

    def _input(self, tensor: torch.Tensor, mark: Mark, reader: str) -> InputTensor:
        rows = rows_of(tensor, self.marks.identity(tensor))
        return InputTensor(tuple(tensor.shape), rows, reader in mark.makers, bool(mark.makers))


@contextmanager
def hooked(
    components: Mapping[str, nn.Module], layers: Mapping[str, tuple[nn.Module, tuple[str, ...]]], hooks: TraceHooks
) -> Iterator[None]:
    """Within the `with`, the hooks are active. Those of a layer run inside those of its component.

    layers: address -> (module, other addresses).
    """
    with ExitStack() as stack:
        modules = [
            (f"{component}.{path}" if path else component, module)
            for component, root in components.items()
            for path, module in root.named_modules()
        ]
        for address, module in modules:
            _hook(stack, module, before=partial(hooks.enter, address))
        for address, (module, _) in layers.items():
            _hook(stack, module, partial(hooks.before, address), partial(hooks.after, address))
        for address, module in modules:
            _hook(stack, module, after=lambda args, kwargs, out, address=address: hooks.leave(address, out))
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


def parts_of(components: Mapping[str, nn.Module], hooks: TraceHooks) -> tuple[ComponentRun, ...]:
    """The run of each component, in order of its first call."""
    readers = Counter(source for record in hooks.records.values() for source in record.use.sources)
    parts = []
    for name in dict.fromkeys((*hooks.visits, *components)):
        visits = hooks.visits.get(name, [])
        iterates = is_iterating(visits)
        classes = classes_of(visits, iterates, {place: n for (owner, place), n in readers.items() if owner == name})
        calls = sum(visit.module == name for visit in visits)
        parts.append(ComponentRun(name, calls, iterates, tuple(classes.items())))
    return tuple(parts)
