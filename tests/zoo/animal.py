"""Defines one pipeline class of diffusers, small and with random weights, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitplan.planner.pipelines.generation import Generation

PROMPTS = ("a small red circle on the left", "a large blue square at the top")
SPREAD = 0.05  # standard deviation of weights that a class begins with at zero


@dataclass(frozen=True)
class Animal:
    """One pipeline. name: of its class; make: builds it from configs; iterates: the components that a sampler runs in
    a loop.
    """

    name: str
    family: str
    make: Callable[[], Any]
    iterates: tuple[str, ...]
    generation: Generation
    conditions: tuple[Any, ...] = PROMPTS

    def build(self) -> Any:
        """Builds the same pipeline each time."""
        torch.manual_seed(0)
        pipe = self.make()
        torch.manual_seed(1)
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                wake(part.eval())
        pipe.set_progress_bar_config(disable=True)
        return pipe


@torch.no_grad()
def wake(module: nn.Module) -> None:
    """Fills the weights that a class initialises with zero, as control nets and gates do, since they would have no
    effect.
    """
    for weight in module.parameters():
        if weight.dim() > 1 and not weight.any():
            weight.normal_(std=SPREAD)
