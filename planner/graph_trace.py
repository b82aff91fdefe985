"""Find the layer graph by running the model once: never by names, never by reading its code.

`planner.flow` keeps, for each memory block (storage), which layers last fed it and which inputs of a component it comes
from. A layer reads the marks of its input, which gives the edges, and leaves itself as the only feeder of its output;
a component that is entered puts the marks of its arguments there. Roles follow from both: see `planner.roles`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import networkx as nx
import torch
from torch import nn

from planner.flow import Flow, Mark, Marks
from planner.graph import Call, Geometry, GraphError, Layer, LayerGraph, Part, architecture_fingerprint
from planner.roles import Scene, Use, component_of, roles_of
from planner.visits import Seen, Visit, classes_of, is_iterating, named_tensors, rows_of


@dataclass
class _Record:
    """What one layer did during the run."""

    shapes: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = field(default_factory=dict)
    inputs: set[tuple[Any, ...]] = field(default_factory=set)
    feeders: set[str] = field(default_factory=set)
    use: Use = field(default_factory=Use)


@dataclass
class _Watch:
    """The hooks of a run, and what they saw: records by address, in order of first execution; visits by component."""

    marks: Marks = field(default_factory=Marks)
    records: dict[str, _Record] = field(default_factory=dict)
    visits: dict[str, list[Visit]] = field(default_factory=dict)
    depth: Counter[str] = field(default_factory=Counter)

    def before(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = args[0] if args else kwargs["input"]
        record, mark, component = (
            self.records.setdefault(address, _Record()),
            self.marks.of(given),
            component_of(address),
        )
        record.inputs.add(self.marks.identity(given))
        record.feeders |= mark.feeders
        record.use.attended |= mark.attended
        record.use.direct |= mark.direct
        record.use.sources |= mark.sources
        record.use.raw |= mark.raw
        if all(owner != component for owner, _ in mark.sources):  # made inside, as from a Python number
            place = f"@{address}"
            self.visits[component][-1].seen[place] = self._seen(given, mark, "")
            record.use.sources.add((component, place))

    def after(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: torch.Tensor) -> None:
        given = args[0] if args else kwargs["input"]
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
        visit = Visit(address)
        self.visits.setdefault(component, []).append(visit)
        given = [pair for name, value in ((*enumerate(args), *kwargs.items()))
                 for pair in named_tensors(str(name), value)]  # fmt: skip
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

    def _seen(self, tensor: torch.Tensor, mark: Mark, reader: str) -> Seen:
        rows = rows_of(tensor, self.marks.identity(tensor))
        return Seen(tuple(tensor.shape), rows, reader in mark.makers, bool(mark.makers))


def find_layers(components: Mapping[str, nn.Module]) -> dict[str, tuple[nn.Linear | nn.Conv2d, tuple[str, ...]]]:
    """Every Linear and Conv2d below the components, with its other addresses, by its first address."""
    addresses: dict[nn.Linear | nn.Conv2d, list[str]] = {}
    for component, root in components.items():
        for path, module in root.named_modules(remove_duplicate=False):
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                addresses.setdefault(module, []).append(f"{component}.{path}" if path else component)
    return {names[0]: (module, tuple(names[1:])) for module, names in addresses.items()}


def trace(components: Mapping[str, nn.Module], run: Callable[[], object]) -> LayerGraph:
    """The layer graph of one call of `run`, which runs the components. Hooks are gone afterwards, come what may.

    Linear and Conv2d modules (subclasses too) become layers when they are called; weights used past their module's
    call, as nn.MultiheadAttention does, are listed as unused. Errors of `run` pass through.
    Raises GraphError when the components hold no layers or the run calls none.
    """
    found = find_layers(components)
    if not found:
        raise GraphError(f"{', '.join(components) or 'nothing'}: no Linear or Conv2d inside; name what to plan")
    watch = _Watch()
    weights = frozenset(w.untyped_storage()._cdata for root in components.values() for w in root.parameters())
    flow = Flow(watch.marks, weights)
    with _hooked(components, found, watch), flow:
        run()
    if not watch.records:
        names = ", ".join(components)
        raise GraphError(f"the run called none of the {len(found)} layers of {names}; name components that it runs")
    parts = _parts(components, watch)
    kinds = {name: _kind(found[name][0]) for name in watch.records}
    uses = {name: record.use for name, record in watch.records.items()}
    roles = roles_of(Scene(uses, kinds, flow.attentions, {part.name: dict(part.inputs) for part in parts}))
    layers = {n: replace(_describe(n, *found[n], record), role=roles[n]) for n, record in watch.records.items()}
    order = {name: place for place, name in enumerate(layers)}
    edges = ((source, name) for name, record in watch.records.items() for source in record.feeders)
    return LayerGraph(
        layers=tuple(layers.values()),
        edges=tuple(sorted(edges, key=lambda edge: (order[edge[0]], order[edge[1]]))),
        shared_inputs=_groups(order, ((n, seen) for n, record in watch.records.items() for seen in record.inputs)),
        tied=_groups(order, ((name, _memory(found[name][0].weight)) for name in layers)),
        unused=tuple(name for name in found if name not in layers),
        parts=parts,
    )


def _parts(components: Mapping[str, nn.Module], watch: _Watch) -> tuple[Part, ...]:
    """What each component did, in order of its first visit."""
    readers = Counter(source for record in watch.records.values() for source in record.use.sources)
    parts = []
    for name in dict.fromkeys((*watch.visits, *components)):
        visits = watch.visits.get(name, [])
        iterates = is_iterating(visits)
        classes = classes_of(visits, iterates, {place: n for (owner, place), n in readers.items() if owner == name})
        calls = sum(visit.module == name for visit in visits)
        parts.append(Part(name, calls, iterates, tuple(classes.items())))
    return tuple(parts)


def survey(components: Mapping[str, nn.Module], addresses: Iterable[str]) -> LayerGraph:
    """What can be told of the named layers without a run: no calls, no edges. Enough for a fingerprint.

    Raises GraphError for an address that holds no layer.
    """
    found = find_layers(components)
    names = list(addresses)
    missing = [name for name in names if name not in found]
    if missing:
        raise GraphError(f"{len(missing)} layers are not in {', '.join(components)}, such as {missing[0]}")
    order = {name: place for place, name in enumerate(names)}
    return LayerGraph(
        layers=tuple(_describe(name, *found[name], _Record()) for name in names),
        edges=(),
        shared_inputs=(),
        tied=_groups(order, ((name, _memory(found[name][0].weight)) for name in names)),
        unused=(),
    )


@contextmanager
def _hooked(
    components: Mapping[str, nn.Module], found: Mapping[str, tuple[nn.Module, tuple[str, ...]]], watch: _Watch
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


def _kind(module: nn.Module) -> str:
    return "conv2d" if isinstance(module, nn.Conv2d) else "linear"


def _describe(address: str, module: nn.Linear | nn.Conv2d, aliases: tuple[str, ...], record: _Record) -> Layer:
    shape, biased = tuple(module.weight.shape), module.bias is not None
    per_output = prod(shape[1:])  # each output number is one dot product of this length
    return Layer(
        address=address,
        aliases=aliases,
        kind=_kind(module),
        weight=shape,
        bias=biased,
        parameters=prod(shape) + biased * shape[0],
        geometry=_geometry(module) if isinstance(module, nn.Conv2d) else None,
        calls=tuple(Call(i, o, prod(o) * per_output, times) for (i, o), times in record.shapes.items()),
    )


def _geometry(conv: nn.Conv2d) -> Geometry:
    def pair(size: Any) -> tuple[int, int]:
        rows, columns = size
        return int(rows), int(columns)

    padding = conv.padding if isinstance(conv.padding, str) else pair(conv.padding)
    return Geometry(pair(conv.stride), padding, pair(conv.dilation), conv.groups, conv.padding_mode)


def _memory(weight: torch.Tensor) -> tuple[int, int]:
    return weight.untyped_storage()._cdata, weight.storage_offset()


def _groups(order: Mapping[str, int], pairs: Iterable[tuple[str, object]]) -> tuple[tuple[str, ...], ...]:
    """The layers that are linked through common keys, directly or by way of others; lone layers are left out."""
    graph = nx.Graph()
    for name, key in pairs:
        graph.add_edge((0, name), (1, key))
    sets = ([name for side, name in part if side == 0] for part in nx.connected_components(graph))
    groups = (tuple(sorted(names, key=order.__getitem__)) for names in sets if len(names) > 1)
    return tuple(sorted(groups, key=lambda names: order[names[0]]))


def module_at(components: Mapping[str, nn.Module], address: str) -> nn.Module:
    """The module at `component.path`. Raises GraphError when there is none."""
    component, _, path = address.partition(".")
    try:
        return components[component].get_submodule(path)
    except (KeyError, AttributeError):
        raise GraphError(f"{address}: no such module in {', '.join(components)}; trace the model again") from None


def fingerprint(components: Mapping[str, nn.Module], graph: LayerGraph) -> str:
    """The fingerprint of the components' layers as they are. Raises GraphError naming the layer that holds NaN or
    infinity."""
    return fingerprint_of(graph, lambda address, name: getattr(module_at(components, address), name))


def fingerprint_of(graph: LayerGraph, read: Callable[[str, str], torch.Tensor | None]) -> str:
    """sha256 (hex) over the architecture and every value of every layer's weight and bias.

    Values are hashed as float32, so that half-precision weights have one fingerprint however they are loaded; they
    are hashed whole, for sha256 takes 1.7 GB/s where the CPU has its instructions (860 M weights: 2 s) and 0.4 GB/s
    where not, and a sample or a sum would miss a change or depend on the order of summation. They are asked for one at
    a time, in the order of addresses: read is given an address and `weight` or `bias`, and gives the values or None.
    Raises GraphError naming the layer that holds NaN or infinity.
    """
    digest = hashlib.sha256(architecture_fingerprint(graph).encode())
    for address in sorted(graph.by_address):
        for name in ("weight", "bias"):
            digest.update(_values(f"{address}.{name}", read(address, name)))  # held by no name: one at a time
    return digest.hexdigest()


def _values(what: str, tensor: torch.Tensor | None) -> memoryview:
    if tensor is None or not tensor.numel():
        return memoryview(b"")
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    low, high = torch.aminmax(values)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = int((~torch.isfinite(values)).sum())
        raise GraphError(f"{what}: {bad} of {values.numel()} values are NaN or infinite; load sound weights")
    return memoryview(values.numpy()).cast("B")
