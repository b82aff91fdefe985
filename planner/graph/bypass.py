"""Finds weights that a run uses outside their modules' calls, such as by `F.linear(x, module.weight)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

REASON = "its weight is used outside its module's call, where the effect of a plan is not measured"


@dataclass
class BypassUse:
    """Records the layers whose weight is used outside the calls of all layers with that weight.

    Attributes:
        weights: layer -> weight, held so that no other memory gets its address.
        calling: the layers that are being called.
        bypassed: the recorded layers.
    """

    weights: Mapping[str, torch.Tensor]
    calling: list[str] = field(default_factory=list)
    bypassed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._spans: dict[int, list[tuple[int, int, str]]] = {}
        for address, weight in self.weights.items():
            spans = self._spans.setdefault(weight.untyped_storage()._cdata, [])
            spans.append((*_span(weight), address))

    def see(self, func: Any, inputs: Iterable[torch.Tensor], out: Any) -> None:
        """Examine an operation. Views and moves to another device do not count as uses."""
        if func.is_view or _is_move(func, inputs, out):
            return
        for tensor in inputs:
            if spans := self._spans.get(tensor.untyped_storage()._cdata):
                first, last = _span(tensor)
                holders = {address for start, stop, address in spans if start < last and first < stop}
                if not holders & set(self.calling):
                    self.bypassed |= holders


def _is_move(func: Any, inputs: Iterable[torch.Tensor], out: Any) -> bool:
    return func.overloadpacket is torch.ops.aten._to_copy and all(tensor.device != out.device for tensor in inputs)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """The first byte in its storage, and the one after its last."""
    if not tensor.numel():
        return 0, 0
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    first = tensor.storage_offset()
    return first * tensor.itemsize, (first + last + 1) * tensor.itemsize
