"""A sampler's run as a chain of calls of one module, to be differentiated backwards one call at a time.

The module runs without a graph and hands out each output as a new leaf, while everything between the calls (guidance,
scheduler, decoder) keeps its graph. Gradients of anything at the end then flow back call by call, so that the graph of
one call is all that is ever held, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sensitivity.table import MeasurementError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Step:
    """One call of the module. output: its first tensor, (B, ...), a leaf of the graph after it; args and kwargs hold
    tensors whose graph ends in the outputs of earlier steps."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor

    @property
    def rows(self) -> int:
        """B, the batch of the call."""
        return len(self.output)

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that depend on earlier steps, in the order in which `tensors_of` meets them."""
        return [tensor for tensor in tensors_of((self.args, self.kwargs)) if tensor.requires_grad]


def unroll(module: nn.Module, run: Callable[[], T]) -> tuple[list[Step], T]:
    """Call `run` with gradients on, and return the steps in their order and what it returned."""
    steps: list[Step] = []
    forward, own = module.forward, "forward" in vars(module)

    def stub(*args: Any, **kwargs: Any) -> Any:
        before = mapped(args, Tensor.clone), mapped(kwargs, Tensor.clone)  # samplers may write into both
        with torch.no_grad():
            output = forward(*mapped(args, Tensor.detach), **mapped(kwargs, Tensor.detach))
        leaf = first_of(output).detach().clone().requires_grad_()
        steps.append(Step(*before, leaf))
        return _with_first(output, leaf.clone())

    module.forward = stub
    try:
        with torch.enable_grad():
            result = run()
    finally:
        del module.forward
        if own:
            module.forward = forward
    return steps, result


def first_of(output: Any) -> Tensor:
    """The tensor that a module returned: bare, or the first of a tuple, a list or a mapping. Raises
    MeasurementError."""
    parts = tensors_of(output)
    if not parts:
        raise MeasurementError(f"the model returned a {type(output).__name__} without a tensor; it cannot be measured")
    return parts[0]


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def repeated(value: Any, rows: int, copies: int) -> Any:
    """The same structure with each tensor of `rows` rows repeated `copies` times, copy after copy, cut off its graph.
    What depends on earlier steps is made a leaf that takes gradients."""

    def repeat(tensor: Tensor) -> Tensor:
        batch = tensor.dim() > 0 and len(tensor) == rows
        found = tensor.detach().repeat(copies, *(1,) * (tensor.dim() - 1)) if batch else tensor.detach()
        return found.requires_grad_() if tensor.requires_grad else found

    return mapped(value, repeat)


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """For the length of the `with` no parameter asks for gradients: only the chain does."""
    asking = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def pull(steps: Sequence[Step], at: int, cotangents: Sequence[Tensor]) -> list[Tensor]:
    """What gradients on the inputs of step `at` mean for the outputs of the steps before it: one tensor each.

    cotangents: like `steps[at].inputs`.
    """
    before = [step.output for step in steps[:at]]
    found = torch.autograd.grad(
        steps[at].inputs, before, list(cotangents), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return list(found)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure of tuples, lists and mappings with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(part, change) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(part, change) for part in value)
    return value


def _with_first(output: Any, leaf: Tensor) -> Any:
    if isinstance(output, Tensor):
        return leaf
    if isinstance(output, Mapping):  # a diffusers output: an ordered mapping that is a dataclass, too
        first = next(iter(output))
        return type(output)(**{**output, first: leaf})
    if isinstance(output[0], Tensor):
        return type(output)((leaf, *output[1:]))
    return type(output)((_with_first(output[0], leaf), *output[1:]))
