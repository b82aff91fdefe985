"""A sampler's run as a chain of calls of one module, to be differentiated backwards one call at a time.

The module runs without a graph and hands out each output as a new leaf, while everything between the calls (guidance,
scheduler, decoder) keeps its graph. Gradients of anything at the end then flow back call by call, so that the graph of
one call is all that is ever held, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
    forward = module.forward

    def stub(*args: Any, **kwargs: Any) -> Any:
        before = mapped(args, Tensor.clone), mapped(kwargs, Tensor.clone)  # samplers may write into both
        with torch.no_grad():
            output = forward(*mapped(args, Tensor.detach), **mapped(kwargs, Tensor.detach))
        leaf = first_of(output).detach().clone().requires_grad_()
        steps.append(Step(*before, leaf))
        return _with_first(output, leaf.clone())

    with _replaced(module, stub), torch.enable_grad():
        return steps, run()


class _CalledError(BaseException):
    """No `Exception`, which a pipeline might catch."""


def first_shapes(module: nn.Module, run: Callable[[], object]) -> list[torch.Size]:
    """The shapes of the tensors that `run` first calls the module with, as `tensors_of` meets them; no more is run."""
    found: list[torch.Size] = []

    def stub(*args: Any, **kwargs: Any) -> None:
        found.extend(tensor.shape for tensor in tensors_of((args, kwargs)))
        raise _CalledError

    with _replaced(module, stub), torch.no_grad(), suppress(_CalledError):
        run()
    return found


def batched(steps: Sequence[Step], larger: Sequence[torch.Size]) -> tuple[bool, ...]:
    """Which of a call's tensors, as `tensors_of` meets them, hold the batch along their first dimension: those that
    grow with it. Others may have as many rows by chance: tokens, or numbers of steps.

    larger: `first_shapes` of the same run with more samples. Raises MeasurementError where copies of a batch could not
    be put into one call: something grows otherwise, nothing does, or what is of the whole batch depends on a sample.
    """
    given = [tensors_of((step.args, step.kwargs)) for step in steps]
    if any(len(tensors) != len(larger) for tensors in given):
        counts = ", ".join(map(str, sorted({len(larger), *map(len, given)})))
        raise _untold(f"it gets {counts} tensors, by call and batch")
    grows = tuple(tensor.shape != after for tensor, after in zip(given[0], larger, strict=True))
    rows = {len(after) and after[0] for after, grown in zip(larger, grows, strict=True) if grown}
    if len(rows) != 1:
        raise _untold(f"{len(rows)} sizes of its batch show in its arguments")
    for step, tensors in zip(steps, given, strict=True):
        for tensor, after, grown in zip(tensors, larger, grows, strict=True):
            if grown and (not tensor.dim() or len(tensor) != step.rows or tensor.shape[1:] != after[1:]):
                shapes = f"{tuple(tensor.shape)} for {step.rows} rows and {tuple(after)} for more"
                raise _untold(f"an argument has the shape {shapes}")
            if tensor.requires_grad and not grown:
                raise _untold(f"an argument for all samples, {tuple(tensor.shape)}, depends on earlier calls")
    return grows


def _untold(why: str) -> MeasurementError:
    return MeasurementError(
        f"the denoiser cannot be called with several copies of a batch: {why}; measure with --method exhaustive"
    )


@contextmanager
def _replaced(module: nn.Module, stub: Callable[..., Any]) -> Iterator[None]:
    """For the length of the `with`, `stub` is what the module does when called."""
    forward, own = module.forward, "forward" in vars(module)
    module.forward = stub
    try:
        yield
    finally:
        del module.forward
        if own:
            module.forward = forward


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


def repeated(value: Any, batched: Sequence[bool], copies: int) -> Any:
    """The same structure cut off its graph, with each tensor that is `batched`, in the order of `tensors_of`, repeated
    `copies` times, copy after copy. What depends on earlier steps is made a leaf that takes gradients."""
    grows = iter(batched)

    def repeat(tensor: Tensor) -> Tensor:
        found = tensor.detach().repeat(copies, *(1,) * (tensor.dim() - 1)) if next(grows) else tensor.detach()
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
