"""Weights that a run uses past their modules' calls, as `F.linear(x, module.weight)` does: no hook sees that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

REASON = "its weight is used past its module's call, where a plan would change it unseen"


@dataclass
class BypassUse:
    """weights: by layer, held so that no other memory gets their addresses; calling: layers under way; found: those
    whose weight was used while neither they nor another layer with that weight were called."""

    weights: Mapping[str, torch.Tensor]
    calling: list[str] = field(default_factory=list)
    found: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._spans: dict[int, list[tuple[int, int, str]]] = {}
        for address, weight in self.weights.items():
            spans = self._spans.setdefault(weight.untyped_storage()._cdata, [])
            spans.append((*_span(weight), address))

    def see(self, func: Any, given: Iterable[torch.Tensor], out: Any) -> None:
        """An operation, what it was given, what it put out. Views are none yet, and neither are moves to a device."""
        if func.is_view or _is_move(func, given, out):
            return
        for tensor in given:
            if spans := self._spans.get(tensor.untyped_storage()._cdata):
                first, last = _span(tensor)
                holders = {address for start, stop, address in spans if start < last and first < stop}
                if not holders & set(self.calling):
                    self.found |= holders


def _is_move(func: Any, given: Iterable[torch.Tensor], out: Any) -> bool:
    return func.overloadpacket is torch.ops.aten._to_copy and all(tensor.device != out.device for tensor in given)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage that it lies in, up to the last but one."""
    if not tensor.numel():
        return 0, 0
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    first = tensor.storage_offset()
    return first * tensor.itemsize, (first + last + 1) * tensor.itemsize
