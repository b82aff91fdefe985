"""A graph's fingerprint is a digest of its layers, their shapes and their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import nn

from bitplan.planner.graph.layers import GraphError, LayerGraph, architecture_fingerprint
from bitplan.plans.layers.addresses import module_at
from bitplan.plans.layers.opening import opened


def fingerprint(components: Mapping[str, nn.Module], graph: LayerGraph) -> str:
    """The fingerprint of the components' layers as they are. Raises GraphError naming the layer that holds NaN or
    infinity."""
    with opened(components):
        return fingerprint_of(graph, lambda address, name: getattr(module_at(components, address), name, None))


def fingerprint_of(graph: LayerGraph, read: Callable[[str, str], torch.Tensor | None]) -> str:
    """sha256 (hex) over the architecture and every value of every layer's weight and bias.

    Values are hashed as float32, so that half-precision weights have one fingerprint however they are loaded; they
    are hashed whole, for sha256 takes 1.7 GB/s where the CPU has its instructions (860 M weights: 2 s) and 0.4 GB/s
    where not, and a sample or a sum would miss a change or depend on the order of summation. They are read one at
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
