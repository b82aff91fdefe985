"""Follows the data flow of a run through every tensor operation, and recognises attention by its products.

Each operation passes through `Flow`, which adds the marks of its inputs to those of its outputs. Marks belong to
storages, not to tensors, so that views and writes into a slice (`out[:, :4] = x`) carry them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bitplan.planner.graph.bypass import BypassUse
from bitplan.planner.graph.layers import component_of

_aten = torch.ops.aten


# the results of these depend on the shape of their input, not on its values, so no data flows
_SHAPE_ONLY = frozenset({
    _aten.empty_like, _aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.rand_like, _aten.randn_like,
    _aten.randint_like, _aten.new_empty, _aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty_strided,
})  # fmt: skip


# operation -> positions of its two factors; `matmul` and `linear` are single operations in inference mode only
_PRODUCTS = {
    _aten.mm: (0, 1), _aten.bmm: (0, 1), _aten.matmul: (0, 1), _aten.linear: (0, 1), _aten.addmm: (1, 2),
    _aten.baddbmm: (1, 2), _aten.addbmm: (1, 2), _aten.embedding: (0, 1), _aten.convolution: (0, 1),
    _aten.conv1d: (0, 1), _aten.conv2d: (0, 1), _aten.conv3d: (0, 1),
}  # fmt: skip


# attention in one operation, whose first arguments are q, k and v; torch versions have different ones
_FUSED = frozenset(
    getattr(_aten, name)
    for name in (
        "scaled_dot_product_attention", "_scaled_dot_product_attention_math",
        "_scaled_dot_product_attention_math_for_mps", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
        "_flash_attention_forward", "_efficient_attention_forward",
    )
    if hasattr(_aten, name)
)  # fmt: skip


Source = tuple[str, str]  # (component, name of one of its inputs)
ATTENDED: Source = ("", "attended")  # a source of every output of an attention
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Operand:
    """One factor of an attention.

    Attributes:
        layers: the layers that it was computed from without another layer between.
        sources: the inputs of components that it was computed from.
    """

    layers: frozenset[str]
    sources: frozenset[Source]


@dataclass(frozen=True)
class AttentionCall:
    """One attention of the run. Linear attention multiplies v and k first; there, the fields follow that order."""

    query: Operand
    key: Operand
    value: Operand


@dataclass
class Mark:
    """The provenance of the data in one storage.

    Attributes:
        block: a weak reference to the storage.
        serial: a unique number.
        writes: the number of writes into it.
        feeders: the layers that it was computed from without another layer between.
        direct: the feeders without an attention between.
        sources: the inputs of components that it was computed from.
        raw: the sources without a layer between.
        makers: all modules whose results it was computed from.
        products: the pairs of factors that it is a product of.
        attended: numbers of the attentions that it was computed from without a layer between.
    """

    block: StorageWeakRef
    serial: int
    writes: int = 0
    feeders: frozenset[str] = _NONE
    direct: frozenset[str] = _NONE
    sources: frozenset[Source] = frozenset()
    raw: frozenset[Source] = frozenset()
    makers: frozenset[str] = _NONE
    products: frozenset[tuple[Operand, Operand]] = frozenset()
    attended: frozenset[int] = frozenset()

    def take(self, others: Iterable[Mark]) -> None:
        """Add the marks of other storages that this one was computed from."""
        for other in others:
            if other is self:
                continue
            self.feeders |= other.feeders
            self.direct |= other.direct
            self.sources |= other.sources
            self.raw |= other.raw
            self.makers |= other.makers
            self.products |= other.products
            self.attended |= other.attended

    def pass_weights(self) -> None:
        """Clear the fields that hold only until data is multiplied with weights."""
        self.raw, self.products, self.attended = frozenset(), frozenset(), frozenset()

    def leave_component(self, component: str) -> None:
        """Clear the marks from inside a component, which is entered again."""
        inside = {component, ATTENDED[0]}
        self.sources = frozenset(source for source in self.sources if source[0] not in inside)
        self.raw = frozenset(source for source in self.raw if source[0] not in inside)
        self.direct = frozenset(layer for layer in self.direct if component_of(layer) != component)
        self.products, self.attended = frozenset(), frozenset()

    @property
    def operand(self) -> Operand:
        return Operand(self.direct, self.sources)


@dataclass
class Marks:
    """The marks of all existing storages. Marks of freed storages are removed whenever the table has doubled.

    Attributes:
        table: address of a storage -> its mark.
        serials: gives unique numbers.
        limit: the size of the table at which it is cleaned.
    """

    table: dict[int, Mark] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=count)
    limit: int = 4096

    def of(self, tensor: torch.Tensor) -> Mark:
        storage = tensor.untyped_storage()
        mark = self.table.get(storage._cdata)  # the weak reference keeps this address reserved
        if mark is None:
            if len(self.table) >= self.limit:
                self.table = {key: mark for key, mark in self.table.items() if not mark.block.expired()}
                self.limit = max(4096, 2 * len(self.table))
            mark = self.table[storage._cdata] = Mark(StorageWeakRef(storage), next(self.serials))
        return mark

    def identity(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """A key that is equal for two tensors if and only if they are the same view of the same, unchanged memory."""
        mark = self.of(tensor)
        return mark.serial, mark.writes, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


class Flow(TorchDispatchMode):
    """Adds the marks of the inputs of every operation to its outputs, and collects the attentions.

    Attributes:
        marks: the marks.
        weights: addresses of the parameters' storages. A product with one outside of all known layers counts as a
            layer without a name.
        bypass: examines every operation.
        attentions: the attentions so far.
    """

    def __init__(self, marks: Marks, weights: frozenset[int] = frozenset(), bypass: BypassUse | None = None) -> None:
        super().__init__()
        self.marks = marks
        self.weights = weights
        self.bypass = bypass
        self.attentions: list[AttentionCall] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in _SHAPE_ONLY:
            return out
        written = _written(func, args, kwargs) if func._schema.is_mutable else []
        inputs = tensors((args, kwargs))
        if self.bypass is not None:
            self.bypass.see(func, inputs, out)
        read = {id(mark): mark for mark in map(self.marks.of, inputs)}
        results = [self.marks.of(tensor) for tensor in tensors((out, written))]
        for mark in results:
            mark.take(read.values())
        for tensor in written:
            self.marks.of(tensor).writes += 1
        if factors := _factors(func.overloadpacket, args):
            self._multiplied(factors, results)
        return out

    def _multiplied(self, factors: list[torch.Tensor], results: list[Mark]) -> None:
        """Mark the results of a product: an unnamed layer, the scores of an attention, or its output."""
        marks = [self.marks.of(tensor) for tensor in factors]
        if any(tensor.untyped_storage()._cdata in self.weights for tensor in factors):
            for mark in results:
                mark.pass_weights()
        elif all(mark.feeders or mark.sources for mark in marks):
            operands = [mark.operand for mark in marks]
            if len(marks) == 3:
                self._attended([AttentionCall(*operands)], results)
            elif scores := marks[0].products or marks[1].products:
                value = operands[1 if marks[0].products else 0]
                self._attended([AttentionCall(query, key, value) for query, key in scores], results)
            else:
                for mark in results:
                    mark.products = frozenset({(operands[0], operands[1])})

    def _attended(self, calls: list[AttentionCall], results: list[Mark]) -> None:
        numbers = frozenset(range(len(self.attentions), len(self.attentions) + len(calls)))
        self.attentions += calls
        for mark in results:
            mark.direct, mark.products, mark.attended = _NONE, frozenset(), numbers
            mark.sources |= {ATTENDED}


def _factors(operation: Any, args: tuple[Any, ...]) -> list[torch.Tensor]:
    """The factors of an operation: two of a product, three of a fused attention, else none."""
    if operation in _FUSED:
        return list(args[:3])
    if operation is _aten.einsum:
        return list(args[1]) if len(args[1]) == 2 else []
    return [args[place] for place in _PRODUCTS.get(operation, ())]


def tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors with memory in a tree of arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided]


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The arguments that the operation writes into."""
    values = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
    names = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return tensors([values[name] for name in names if name in values])
