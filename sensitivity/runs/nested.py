"""Handles tensors in nested tuples, lists, mappings and dataclasses, which modules take and return.

A batch is the first dimension of a tensor, or a list with one tensor for each sample. Such a list is treated as one
tensor, so that code that copies, cuts or differentiates batches need not distinguish the two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from bitplan.sensitivity.table import MeasurementError


@dataclass(frozen=True, eq=False)
class SampleList:
    """A list with a tensor for each sample, as one tensor.

    Attributes:
        tensor: (B, ...); if samples differ in shape, all their numbers, (N,), sample after sample.
        shapes: the shape of each sample of one copy of the batch; the tensor may hold several copies.
        kind: list or tuple.
    """

    tensor: Tensor
    shapes: tuple[torch.Size, ...]
    kind: type

    @property
    def ragged(self) -> bool:
        """Whether samples differ in shape."""
        return len(set(self.shapes)) > 1

    @property
    def shape(self) -> torch.Size:
        """The shape of one copy with the batch first; (B,) if samples differ in shape."""
        return torch.Size((len(self.shapes), *(() if self.ragged else self.shapes[0])))

    @property
    def requires_grad(self) -> bool:
        """Whether the tensor requires gradients."""
        return self.tensor.requires_grad

    def parts(self) -> list[Tensor]:
        """The tensors of all samples, of all copies."""
        if not self.ragged:
            return list(self.tensor.unbind())
        shapes = self.shapes * (len(self.tensor) // sum(shape.numel() for shape in self.shapes))
        flat = self.tensor.split([shape.numel() for shape in shapes])
        return [one.view(shape) for one, shape in zip(flat, shapes, strict=True)]


Leaf = Tensor | SampleList


def listed(tensors: Sequence[Tensor]) -> SampleList:
    """A list of at least one tensor as one tensor that keeps their graph."""
    shapes = tuple(tensor.shape for tensor in tensors)
    same = len(set(shapes)) == 1
    whole = torch.stack(list(tensors)) if same else torch.cat([tensor.reshape(-1) for tensor in tensors])
    return SampleList(whole, shapes, type(tensors))


def plain(value: Any) -> Any:
    """The same structure with a list for each `SampleList`."""
    return _changed(value, lambda leaf: leaf if isinstance(leaf, Tensor) else leaf.kind(leaf.parts()))


def paired(value: Any, larger: Any) -> tuple[Any, Any]:
    """Both structures, with a `SampleList` for each list of tensors that is longer in the second one."""
    if _is_list(value) and _is_list(larger) and len(value) != len(larger):
        return listed(value), listed(larger)
    parts, others = parts_of(value), parts_of(larger)
    if parts is None or others is None or parts.keys() != others.keys():
        return value, larger
    both = {key: paired(part, others[key]) for key, part in parts.items()}
    one, other = ({key: pair[side] for key, pair in both.items()} for side in (0, 1))
    return _rebuilt(value, one), _rebuilt(larger, other)


def gathered(arguments: tuple[Sequence[Any], Mapping[str, Any]], output: Any) -> Any:
    """The result of a module, with its first list of tensors as a `SampleList` if that holds the batch.

    It does if the module's first argument with tensors is a list, too, and both have one length, and the tensors of
    the result have one shape. arguments: of the call, positional and by name.
    """
    first = next((part for part in (*arguments[0], *arguments[1].values()) if tensors_of(part)), None)
    count = len(first) if _is_list(first) else 0

    def gather(value: Any) -> Any:
        if isinstance(value, list) and _is_list(value):
            fits = len(value) == count and len({one.shape for one in value}) == 1
            return listed(value) if fits else value
        parts = parts_of(value)
        if parts is None:
            return value
        place = next((key for key, part in parts.items() if tensors_of(part)), None)
        return _rebuilt(value, {key: gather(part) if key == place else part for key, part in parts.items()})

    return gather(output) if count else output


def _is_list(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(isinstance(part, Tensor) for part in value)


def parts_of(value: Any) -> dict[Any, Any] | None:
    """The parts of a tuple, list, mapping or dataclass by index, key or name; None for anything else."""
    if isinstance(value, Mapping):  # outputs of diffusers are dataclasses and mappings
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if is_dataclass(value) and not isinstance(value, (type, SampleList, torch.nn.Module)):
        return {each.name: getattr(value, each.name) for each in fields(value) if hasattr(value, each.name)}
    return None


def _rebuilt(value: Any, parts: Mapping[Any, Any]) -> Any:
    """The same tuple, list, mapping or dataclass with other parts."""
    if isinstance(value, Mapping):
        return type(value)(**parts) if is_dataclass(value) else dict(parts)
    if isinstance(value, tuple) and hasattr(value, "_make"):  # a named tuple
        return value._make(parts.values())
    if isinstance(value, (tuple, list)):
        return type(value)(parts.values())
    other = copy.copy(value)
    for name, part in parts.items():
        object.__setattr__(other, name, part)  # the dataclass may be frozen
    return other


def first_of(output: Any) -> Tensor:
    """The tensor that a module returned, or the first one in its tuple, list or mapping. Raises MeasurementError if
    there is none."""
    parts = tensors_of(output)
    if not parts:
        raise MeasurementError(f"the model returned a {type(output).__name__} without a tensor; it cannot be measured")
    return parts[0]


def leaves_of(value: Any) -> list[Leaf]:
    """All tensors and `SampleList`s in nested tuples, lists, mappings and dataclasses, in order."""
    return [leaf for _, leaf in named_leaves(value)]


def named_leaves(value: Any, name: str = "") -> Iterator[tuple[str, Leaf]]:
    """The `leaves_of` a structure, each with its place, such as `added_cond_kwargs.time_ids`."""
    if isinstance(value, (Tensor, SampleList)):
        yield name, value
        return
    for key, part in (parts_of(value) or {}).items():
        yield from named_leaves(part, f"{name}.{key}" if name else str(key))


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of `leaves_of`, in order."""
    return [leaf if isinstance(leaf, Tensor) else leaf.tensor for leaf in leaves_of(value)]


def repeated(value: Any, batched: Sequence[bool], copies: int) -> Any:
    """The same structure without its graph, with several copies of the batch.

    A tensor that required gradients becomes a leaf that does.

    Args:
        value: the structure.
        batched: whether each tensor, in the order of `tensors_of`, holds the batch.
        copies: the number of copies, one behind the other.
    """
    grows = iter(batched)

    def repeat(tensor: Tensor) -> Tensor:
        leaf = tensor.detach().repeat(copies, *(1,) * (tensor.dim() - 1)) if next(grows) else tensor.detach()
        return leaf.requires_grad_() if tensor.requires_grad else leaf

    return mapped(value, repeat)


def alone(value: Any, batched: Sequence[bool], row: int, rows: int) -> Any:
    """The same structure for one of the `rows` samples of a batch. batched: see `repeated`."""
    grows = iter(batched)

    def cut(leaf: Leaf) -> Leaf:
        if not next(grows):
            return leaf
        if isinstance(leaf, SampleList):
            return listed(leaf.kind([leaf.parts()[row].detach()]))
        each = len(leaf) // rows
        return leaf.detach()[row * each : (row + 1) * each]

    return _changed(value, cut)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed by a function."""

    def changed(leaf: Leaf) -> Leaf:
        return change(leaf) if isinstance(leaf, Tensor) else SampleList(change(leaf.tensor), leaf.shapes, leaf.kind)

    return _changed(value, changed)


def _changed(value: Any, change: Callable[[Leaf], Any]) -> Any:
    if isinstance(value, (Tensor, SampleList)):
        return change(value)
    parts = parts_of(value)
    return value if parts is None else _rebuilt(value, {key: _changed(part, change) for key, part in parts.items()})


def copied(value: Any) -> Any:
    """The same structure with copies of all tensors, of random generators and of containers, so that what a call
    writes, draws or removes is not missing when the call is repeated. What comes twice comes twice in the copy.

    Raises MeasurementError for an iterator, which a call uses up.
    """
    done: dict[int, Tensor] = {}

    def copy_of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return done.setdefault(id(value), value.clone())
        if isinstance(value, SampleList):
            return mapped(value, Tensor.clone)
        if isinstance(value, torch.Generator):
            return value.clone_state()
        if isinstance(value, Iterator):
            raise MeasurementError(
                f"a module gets a {type(value).__name__}, which a call uses up, so that the call cannot be repeated; "
                "pass a list instead"
            )
        parts = parts_of(value)
        return value if parts is None else _rebuilt(value, {key: copy_of(part) for key, part in parts.items()})

    return copy_of(value)
