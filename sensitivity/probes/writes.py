"""Finds what a call or a run wrote into tensors and containers that it got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.sensitivity.runs.nested import tensors_of


class Snapshot:
    """The content of the arguments of a call at one moment, in lists, mappings and other objects."""

    def __init__(self, arguments: object) -> None:
        self.arguments, self.content = arguments, list(_content(arguments))

    def kept(self) -> bool:
        """Whether the arguments hold something new, which a later call could read. What is removed is not kept."""
        before = Counter((id(value), writes) for value, writes in self.content)
        return bool(Counter((id(value), writes) for value, writes in _content(self.arguments)) - before)


def _content(value: object, inside: bool = False, depth: int = 8) -> Iterator[tuple[object, int]]:
    """The contents of a value, each with the number of writes into it.

    inside: whether the value is an attribute of an object. Only tensors count there: objects may set other attributes
    when they are first used.
    """
    if isinstance(value, (Tensor, nn.Module)) or not depth:
        written = inside and isinstance(value, Tensor) and not value.is_inference()
        yield value, value._version if written else 0
    elif isinstance(value, (Mapping, tuple, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _content(part, inside, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _content(vars(value), True, depth - 1)
    elif not inside:
        yield value, 0


def writes_into(tensor: Tensor) -> int:
    """The number of writes into a tensor; tensors of inference mode do not count them."""
    return 0 if tensor.is_inference() else tensor._version


def written_unseen(value: Any, before: Any) -> bool:
    """Whether tensors changed without a write that torch counts. before: the same structure as it was."""
    pairs = zip(tensors_of(value), tensors_of(before), strict=True)
    return any(not writes_into(one) and not torch.allclose(one, was, 0, 0, equal_nan=True) for one, was in pairs)
