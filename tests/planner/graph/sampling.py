"""Runs denoisers as samplers do, and compares the roles of their layers."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from bitplan.planner.graph.layers import LayerGraph

TIMES = (900, 500, 100)


def check(graph: LayerGraph, expected: dict[str, str]) -> None:
    """expected: pattern of addresses -> role, the first that fits counts; each must fit something or be no layer."""
    wrong = {}
    for layer in graph.layers:
        role = next((role for pattern, role in expected.items() if fnmatch(layer.address, pattern)), None)
        if layer.role != role:
            wrong[layer.address] = f"{layer.role}, not {role}"
    assert not wrong


def _another(value: torch.Tensor) -> torch.Tensor:
    """Another condition, in the range of its kind: class 0, or ones."""
    return torch.zeros_like(value) if value.dtype == torch.long else torch.ones_like(value)


def sampled(net: nn.Module, shape: tuple[int, ...], cond: dict[str, Any], twice: bool = False, times: Any = TIMES):
    """A sampler of its own. twice: guidance by two calls a step, the second on another condition."""

    def call(x: torch.Tensor, t: int, cond: dict[str, Any]) -> torch.Tensor:
        time = torch.full((len(x),), float(t))
        return net(hidden_states=x, timestep=time, return_dict=False, **cond)[0][:, : x.shape[1]]

    def run() -> None:
        x, other = torch.randn(shape), {name: tree_map(_another, value) for name, value in cond.items()}
        for t in times:
            v = call(x, t, cond)
            x = x - 0.1 * (v + (call(x, t, other) - v if twice else 0))

    return run
