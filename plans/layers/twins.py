"""Embeddings that the class of a model ties, as T5 and UMT5, become one module in all their places, and several again.

Such a module is one layer with several addresses: it is measured, packed, counted and saved once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from bitplan.plans.layers.carried import HOOKS, attached
from bitplan.plans.layers.modules import kind_of
from bitplan.plans.layers.ties import declared_ties, memory_of


@dataclass(frozen=True, eq=False)
class Twin:
    """A place, attribute `name` of `parent`, that holds `first` in place of `module`, which has the same weight."""

    parent: nn.Module
    name: str
    first: nn.Module
    module: nn.Module


def merge(components: Mapping[str, nn.Module]) -> tuple[Twin, ...]:
    """Puts the first embedding of each weight in the places of all in its component. Those on which something hangs
    stay as they are."""
    twins = tuple(twin for root in components.values() for twin in _twins(root))
    put_firsts(twins)
    return twins


def put_firsts(twins: Iterable[Twin]) -> None:
    """Merges what was split."""
    for twin in twins:
        twin.parent._modules[twin.name] = twin.first


def split(twins: Iterable[Twin]) -> None:
    """Puts each embedding back, with the weight that the first one has now; a place that holds another one stays."""
    for twin in twins:
        if twin.parent._modules.get(twin.name) is twin.first:
            twin.module._parameters["weight"] = twin.first._parameters["weight"]
            twin.parent._modules[twin.name] = twin.module


def _twins(root: nn.Module) -> Iterator[Twin]:
    first: dict[tuple[object, ...], nn.Module] = {}
    tied = declared_ties(root)
    for parent in root.modules() if tied else ():
        for name, child in parent._modules.items():
            if child is not None and _can_be_one(child) and memory_of(child.weight) in tied:
                held = first.setdefault((id(child.weight), _attributes(child)), child)
                if held is not child:
                    yield Twin(parent, name, held, child)


def _can_be_one(module: nn.Module) -> bool:
    hooks = any(getattr(module, name) for name in HOOKS)
    return type(module) is nn.Embedding and kind_of(module) is not None and not hooks and attached(module) is None


def _attributes(module: nn.Module) -> str:
    """Two modules with the same ones do the same."""
    return repr(sorted((name, value) for name, value in vars(module).items() if not name.startswith("_")))
