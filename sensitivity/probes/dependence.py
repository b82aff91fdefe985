"""Tells which tensors of a run depend on the outputs of recorded calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bitplan.sensitivity.runs.nested import mapped


class Dependence:
    """Which tensors depend on the outputs of calls. Others may require gradients, too, such as a parameter that a
    pipeline makes, or what a frozen model outside of the subject computes."""

    def __init__(self) -> None:
        self.outputs: dict[int, Tensor] = {}
        self.independent: set[Any] = set()  # nodes of the graph

    def add(self, outputs: Iterable[Tensor]) -> None:
        """Count these outputs of a call."""
        self.outputs |= {id(output): output for output in outputs}

    def cut(self, value: Any) -> Any:
        """The same structure, where tensors that depend on no output have no graph."""
        return mapped(value, lambda x: x if not x.requires_grad or self._reaches(x.grad_fn) else x.detach())

    def _reaches(self, node: Any) -> bool:
        seen, stack = set(), [node]
        while stack:
            node = stack.pop()
            if node is None or node in seen or node in self.independent:
                continue
            if id(getattr(node, "variable", None)) in self.outputs:
                return True
            seen.add(node)
            stack += [earlier for earlier, _ in node.next_functions]
        self.independent |= seen
        return False
