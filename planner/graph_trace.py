"""Find the layer graph by running the model once: never by names, never by reading its code.

Every tensor operation of the run passes `_Flow`, which keeps, for each memory block (storage), the set of layers that
last fed it. A layer reads the set of its input, which gives the edges, and leaves itself as the only feeder of its
output. Marks belong to storages, not to tensors, so that views and writes into a slice (`out[:, :4] = x`) carry them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Any

import networkx as nx
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from planner.graph import Call, Geometry, GraphError, Layer, LayerGraph, architecture_fingerprint

_aten = torch.ops.aten
# what these return depends on the shape of their input, not on its values: no data flows
_SHAPE_ONLY = frozenset({
    _aten.empty_like, _aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.rand_like, _aten.randn_like,
    _aten.randint_like, _aten.new_empty, _aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty_strided,
})  # fmt: skip
_NOBODY: frozenset[str] = frozenset()


@dataclass
class _Mark:
    """What is known of one storage: a number never given twice, who last fed it, and how often it was written."""

    block: StorageWeakRef
    serial: int
    feeders: frozenset[str] = _NOBODY
    writes: int = 0


@dataclass
class _Marks:
    """The marks of all living storages. Memory is bounded by twice what lives: dead ones are swept as they double."""

    table: dict[int, _Mark] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=count)
    limit: int = 4096

    def of(self, tensor: torch.Tensor) -> _Mark:
        storage = tensor.untyped_storage()
        mark = self.table.get(storage._cdata)  # a weak reference keeps this address from being given to another
        if mark is None:
            if len(self.table) >= self.limit:
                self.table = {key: mark for key, mark in self.table.items() if not mark.block.expired()}
                self.limit = max(4096, 2 * len(self.table))
            mark = self.table[storage._cdata] = _Mark(StorageWeakRef(storage), next(self.serials))
        return mark

    def identity(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """Equal for two tensors exactly when they show the same values of the same memory in the same way."""
        mark = self.of(tensor)
        return mark.serial, mark.writes, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


class _Flow(TorchDispatchMode):
    """Passes feeders from the inputs of every operation on to its outputs."""

    def __init__(self, marks: _Marks) -> None:
        super().__init__()
        self.marks = marks

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in _SHAPE_ONLY:
            return out
        written = _written(func, args, kwargs) if func._schema.is_mutable else []
        feeders = _NOBODY.union(*(self.marks.of(t).feeders for t in _tensors((args, kwargs))))
        for tensor in _tensors((out, written)):
            self.marks.of(tensor).feeders |= feeders
        for tensor in written:
            self.marks.of(tensor).writes += 1
        return out


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided]


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The arguments that the operation writes into."""
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
    names = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return _tensors([given[name] for name in names if name in given])


@dataclass
class _Record:
    """What one layer did during the run."""

    shapes: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = field(default_factory=dict)
    inputs: set[tuple[Any, ...]] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)


@dataclass
class _Watch:
    """The hooks of a run, and what they saw: records by address, in order of first execution."""

    marks: _Marks = field(default_factory=_Marks)
    records: dict[str, _Record] = field(default_factory=dict)

    def before(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = args[0] if args else kwargs["input"]
        record = self.records.setdefault(address, _Record())
        record.inputs.add(self.marks.identity(given))
        record.sources |= self.marks.of(given).feeders

    def after(self, address: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: torch.Tensor) -> None:
        given = args[0] if args else kwargs["input"]
        shapes = self.records[address].shapes
        key = tuple(given.shape), tuple(out.shape)
        shapes[key] = shapes.get(key, 0) + 1
        self.marks.of(out).feeders = frozenset({address})


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
    with _hooked(found, watch), _Flow(watch.marks):
        run()
    if not watch.records:
        names = ", ".join(components)
        raise GraphError(f"the run called none of the {len(found)} layers of {names}; name components that it runs")
    layers = {name: _describe(name, *found[name], record) for name, record in watch.records.items()}
    order = {name: place for place, name in enumerate(layers)}
    edges = ((source, name) for name, record in watch.records.items() for source in record.sources)
    return LayerGraph(
        layers=tuple(layers.values()),
        edges=tuple(sorted(edges, key=lambda edge: (order[edge[0]], order[edge[1]]))),
        shared_inputs=_groups(order, ((n, seen) for n, record in watch.records.items() for seen in record.inputs)),
        tied=_groups(order, ((name, _memory(found[name][0].weight)) for name in layers)),
        unused=tuple(name for name in found if name not in layers),
    )


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
def _hooked(found: Mapping[str, tuple[nn.Module, tuple[str, ...]]], watch: _Watch) -> Iterator[None]:
    with ExitStack() as stack:
        for address, (module, _) in found.items():
            before = module.register_forward_pre_hook(
                lambda _, args, kwargs, address=address: watch.before(address, args, kwargs), with_kwargs=True
            )
            stack.callback(before.remove)
            after = module.register_forward_hook(
                lambda _, args, kwargs, out, address=address: watch.after(address, args, kwargs, out), with_kwargs=True
            )
            stack.callback(after.remove)
        yield


def _describe(address: str, module: nn.Linear | nn.Conv2d, aliases: tuple[str, ...], record: _Record) -> Layer:
    shape, biased = tuple(module.weight.shape), module.bias is not None
    per_output = prod(shape[1:])  # each output number is one dot product of this length
    return Layer(
        address=address,
        aliases=aliases,
        kind="conv2d" if isinstance(module, nn.Conv2d) else "linear",
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
