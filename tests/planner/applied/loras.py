"""Random LoRAs, what they add, and files of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Adapter = Mapping[str, tuple[Tensor, Tensor]]  # path of a layer -> its A and B


def adapter_for(model: nn.Module, layers: Iterable[str], seed: int, rank: int = 2) -> Adapter:
    random = torch.Generator().manual_seed(seed)

    def pair(layer: Any) -> tuple[Tensor, Tensor]:
        a, b = torch.empty(rank, *layer.weight.shape[1:]), torch.empty(layer.weight.shape[0], rank)
        a.normal_(std=a[0].numel() ** -0.5, generator=random)
        return a, b.normal_(std=0.3, generator=random)[(..., *[None] * (a.dim() - 2))]

    return {path: pair(model.get_submodule(path)) for path in layers}


def file_of(adapter: Adapter, name: str) -> dict[str, Tensor]:
    """The tensors of a file with that LoRA for the component `name`."""
    pairs = {path: {"A": a, "B": b} for path, (a, b) in adapter.items()}
    return {f"{name}.{path}.lora_{x}.weight": t.clone() for path, pair in pairs.items() for x, t in pair.items()}


def term(layer: Any, x: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
    """What a LoRA adds to the output of a layer."""
    a, b = pair
    if a.dim() == 2:
        return functional.linear(functional.linear(x, a), b)
    return functional.conv2d(functional.conv2d(x, a, None, layer.stride, layer.padding, layer.dilation), b)
