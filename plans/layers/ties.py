"""Finds layers whose weight is held elsewhere too, such that packing them would not replace it.

The float weight would stay in memory beside the packed one, and the two would be changed, saved and loaded apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitplan.plans.layers.addresses import addresses
from bitplan.plans.layers.modules import kind_of

DECLARED = "all_tied_weights_keys"  # of models of transformers: target -> source, which loading ties again
Memory = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Holder:
    """A module that holds a tensor. name: of the parameter; address: of the module."""

    module: nn.Module
    name: str
    address: str

    @property
    def is_layer(self) -> bool:
        """Whether it is the weight of a layer that can be planned."""
        return self.name == "weight" and kind_of(self.module) is not None

    def __str__(self) -> str:
        return f"{self.address}.{self.name}"


def memory_of(tensor: torch.Tensor) -> Memory:
    """Equal for tensors that begin at the same place in memory, also on the device meta."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset()


def ties(components: Mapping[str, nn.Module]) -> dict[str, str]:
    """Returns first address -> reason for the layers that cannot be planned because of a tie: their weight is also a
    parameter that is no layer's weight, or the class of the model ties it whenever the model is loaded.

    Layers that are tied among themselves in another way can be planned, together.
    """
    declared = {memory for root in components.values() for memory in declared_ties(root)}
    reasons: dict[str, str] = {}
    for memory, holders in _holders(components).items():
        if len(holders) > 1 and (memory in declared or not all(holder.is_layer for holder in holders)):
            reasons |= {one.address: _reason(one, holders) for one in holders if one.is_layer}
    return reasons


def tied_outside(components: Mapping[str, nn.Module], layers: Mapping[str, Any]) -> dict[str, str]:
    """Returns address -> reason for those of `layers` whose weight is also that of a module that is not among them."""
    reasons: dict[str, str] = {}
    for holders in _holders(components).values():
        if outside := [holder for holder in holders if holder.address not in layers]:
            reasons |= {one.address: _reason(one, outside) for one in holders if one not in outside}
    return reasons


def _reason(layer: Holder, holders: list[Holder]) -> str:
    other = next(holder for holder in holders if holder is not layer)
    return f"its weight is also {other}, which a packed layer could not share"


def _holders(components: Mapping[str, nn.Module]) -> dict[Memory, list[Holder]]:
    found: dict[Memory, list[Holder]] = {}
    for module, (address, *_) in addresses(components).items():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                found.setdefault(memory_of(tensor), []).append(Holder(module, name, address))
    return found


def declared_ties(root: nn.Module) -> set[Memory]:
    """The weights that the class of a model ties whenever it is loaded, of all models in `root`."""
    return {memory for module in root.modules() for memory in _declared(module)}


def _declared(model: Any) -> Iterator[Memory]:
    """The weights that the class of a model ties, where they are tied now."""
    pairs = getattr(model, DECLARED, None)
    for names in pairs.items() if isinstance(pairs, dict) else ():
        try:
            memories = {memory_of(model.get_parameter(name)) for name in names}
        except AttributeError:  # packed, or not there
            continue
        if len(memories) == 1:
            yield from memories
