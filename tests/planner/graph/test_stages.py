"""Of two stages both iterate, and a language model does not."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from bitplan.planner.graph.components import iterating, only
from bitplan.planner.graph.trace import trace

torch.set_num_threads(1)


class Stage(nn.Module):
    def __init__(self, width: int = 4, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_two_stages_iterate_and_a_language_model_does_not() -> None:
    """Each stage reads itself; the language model reads itself, too, and grows by it; the decoder reads others."""
    parts = {"decoder": Stage(depth=30), "words": Stage(), "first": Stage(), "second": Stage()}

    def run() -> None:
        text = torch.randn(1, 3, 4)
        for _ in range(4):
            text = torch.cat([text, parts["words"](text)[:, -1:]], 1)
        x = torch.randn(1, 1, 4)
        for name in ("first", "first", "first", "second", "second"):
            x = x - 0.1 * parts[name](x + text[:, :1])
        parts["decoder"](x)

    graph = trace(parts, run)
    assert [(p.name, p.iterates) for p in graph.parts] == [
        ("words", False), ("first", True), ("second", True), ("decoder", False),
    ]  # fmt: skip
    assert iterating(graph) == ("first", "second")
    none = replace(graph, parts=tuple(replace(part, iterates=False) for part in graph.parts))
    assert iterating(none) == ("decoder",)
    assert iterating(only(none, ("first", "words"))) == ("words",)
