"""What flows where during a run, operation by operation: marks on memory, and the products that attention is made of.

Every tensor operation of the run passes `Flow`, which hands the marks of what it read on to what it wrote. Marks belong
to storages, not to tensors, so that views and writes into a slice (`out[:, :4] = x`) carry them.
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


# what these return depends on the shape of their input, not on its values: no data flows
_SHAPE_ONLY = frozenset({
    _aten.empty_like, _aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.rand_like, _aten.randn_like,
    _aten.randint_like, _aten.new_empty, _aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty_strided,
})  # fmt: skip


# operation -> where its two factors stand; `matmul`, `linear` and the like are seen whole in inference mode only
_PRODUCTS = {
    _aten.mm: (0, 1), _aten.bmm: (0, 1), _aten.matmul: (0, 1), _aten.linear: (0, 1), _aten.addmm: (1, 2),
    _aten.baddbmm: (1, 2), _aten.addbmm: (1, 2), _aten.embedding: (0, 1), _aten.convolution: (0, 1),
    _aten.conv1d: (0, 1), _aten.conv2d: (0, 1), _aten.conv3d: (0, 1),
}  # fmt: skip


# attention in one operation, whose first arguments are q, k and v; which of them there are depends on torch
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


Source = tuple[str, str]  # (component, place among its inputs)
ATTENDED: Source = ("", "attended")  # in the sources of all that an attention put out
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Operand:
    """One factor of an attention. layers: those that fed it with nothing but plain operations between."""

    layers: frozenset[str]
    sources: frozenset[Source]


@dataclass(frozen=True)
class AttentionCall:
    """One attention that ran. In linear attention, which multiplies v and k first, the names are those of the order."""

    query: Operand
    key: Operand
    value: Operand


@dataclass
class Mark:
    """What is known of one storage.

    serial: a number never given twice; writes: how often it was written; feeders: the layers that last fed it; direct:
    those of them that no attention lies between; sources: the components' inputs that it was computed from; raw: those
    of them that no layer lies between; makers: the modules whose results it was computed from, ever; products: the
    pairs of factors that it is a product of; attended: numbers of the attentions whose result it holds, before a layer.
    """

    block: StorageWeakRef
    serial: int
    writes: int = 0
    feeders: frozenset[str] = _NOBODY
    direct: frozenset[str] = _NOBODY
    sources: frozenset[Source] = frozenset()
    raw: frozenset[Source] = frozenset()
    makers: frozenset[str] = _NOBODY
    products: frozenset[tuple[Operand, Operand]] = frozenset()
    attended: frozenset[int] = frozenset()

    def take(self, others: Iterable[Mark]) -> None:
        """Be fed by others, too."""
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
        """Forget what only holds until the next weights, be they of a layer or not."""
        self.raw, self.products, self.attended = frozenset(), frozenset(), frozenset()

    def leave_component(self, component: str) -> None:
        """Forget what held inside of a component, which is entered anew."""
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
    """The marks of all living storages. Memory is bounded by twice what lives: dead ones are swept as they double."""

    table: dict[int, Mark] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=count)
    limit: int = 4096

    def of(self, tensor: torch.Tensor) -> Mark:
        storage = tensor.untyped_storage()
        mark = self.table.get(storage._cdata)  # a weak reference keeps this address from being given to another
        if mark is None:
            if len(self.table) >= self.limit:
                self.table = {key: mark for key, mark in self.table.items() if not mark.block.expired()}
                self.limit = max(4096, 2 * len(self.table))
            mark = self.table[storage._cdata] = Mark(StorageWeakRef(storage), next(self.serials))
        return mark

    def identity(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """Equal for two tensors exactly when they show the same values of the same memory in the same way."""
        mark = self.of(tensor)
        return mark.serial, mark.writes, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


class Flow(TorchDispatchMode):
    """Passes marks from the inputs of every operation on to its outputs, and collects the attentions among them.

    weights: the storages of the modules' parameters. Where one is multiplied outside of a known layer, the result is
    that of a layer all the same, only a nameless one. past: is told of every operation.
    """

    def __init__(self, marks: Marks, weights: frozenset[int] = frozenset(), past: BypassUse | None = None) -> None:
        super().__init__()
        self.marks = marks
        self.weights = weights
        self.past = past
        self.attentions: list[AttentionCall] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in _SHAPE_ONLY:
            return out
        written = _written(func, args, kwargs) if func._schema.is_mutable else []
        given = tensors((args, kwargs))
        if self.past is not None:
            self.past.see(func, given, out)
        read = {id(mark): mark for mark in map(self.marks.of, given)}
        results = [self.marks.of(tensor) for tensor in tensors((out, written))]
        for mark in results:
            mark.take(read.values())
        for tensor in written:
            self.marks.of(tensor).writes += 1
        if factors := _factors(func.overloadpacket, args):
            self._multiplied(factors, results)
        return out

    def _multiplied(self, factors: list[torch.Tensor], results: list[Mark]) -> None:
        """Results of a product: of a nameless layer, scores, or what an attention put out."""
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

    def _attended(self, found: list[AttentionCall], results: list[Mark]) -> None:
        numbers = frozenset(range(len(self.attentions), len(self.attentions) + len(found)))
        self.attentions += found
        for mark in results:
            mark.direct, mark.products, mark.attended = _NOBODY, frozenset(), numbers
            mark.sources |= {ATTENDED}


def _factors(operation: Any, args: tuple[Any, ...]) -> list[torch.Tensor]:
    """The tensors that are multiplied with each other: two of a product, three of a fused attention."""
    if operation in _FUSED:
        return list(args[:3])
    if operation is _aten.einsum:
        return list(args[1]) if len(args[1]) == 2 else []
    return [args[place] for place in _PRODUCTS.get(operation, ())]


def tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors with memory in the arguments or the results of an operation."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided]


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The arguments that the operation writes into."""
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
    names = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return tensors([given[name] for name in names if name in given])
