"""Unrolls a sampler's run into a chain of module calls that are differentiated backwards one call at a time.

The modules run without a graph and each output becomes a new leaf, while everything between the calls (guidance,
scheduler, decoder) keeps its graph. Gradients then flow back call by call, so that memory holds the graph of one call
alone, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bitplan.sensitivity.runs.nested import (
    first_of,
    gathered,
    leaves_of,
    mapped,
    paired,
    plain,
    tensors_of,
)
from bitplan.sensitivity.table import MeasurementError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a module.

    A list with a tensor for each sample is a `SampleList` in the result, and after `rehearse` in the arguments.

    Attributes:
        module: the module.
        args, kwargs: its arguments; the graph of their tensors ends in the results of earlier steps.
        returned: its result, whose tensors, (B, ...) each, are leaves of the graph after it.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    returned: Any

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors of the result that require gradients."""
        return tuple(tensor for tensor in tensors_of(self.returned) if tensor.requires_grad)

    @property
    def output(self) -> Tensor:
        """The first of the outputs, which the sampler uses."""
        return self.outputs[0]

    @property
    def rows(self) -> int:
        """B, the batch size of the call."""
        return len(self.output)

    @property
    def inputs(self) -> list[Tensor]:
        """The argument tensors that depend on earlier steps, in the order of `tensors_of`."""
        return [tensor for tensor in tensors_of((self.args, self.kwargs)) if tensor.requires_grad]

    def again(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Call the module with other arguments and return its tensors in the order of `outputs`."""
        arguments = tuple(plain(tuple(args))), plain(dict(kwargs))
        output = gathered(arguments, self.module(*arguments[0], **arguments[1]))
        return [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]


class Snapshot:
    """The content of the arguments of a call at one moment, in lists, mappings and other objects."""

    def __init__(self, arguments: object) -> None:
        self.arguments, self.content = arguments, list(_content(arguments))

    def changed(self) -> bool:
        """Whether the arguments hold something else now, which a later call could read."""
        now = list(_content(self.arguments))
        return len(now) != len(self.content) or any(
            one is not two or before != after for (one, before), (two, after) in zip(self.content, now, strict=True)
        )


def _content(value: object, inside: bool = False, depth: int = 8) -> Iterator[tuple[object, int]]:
    """The contents of a value, each with the number of writes into it.

    inside: whether the value is an attribute of an object. Only tensors count there: objects may set other attributes
    when they are first used.
    """
    if isinstance(value, (Tensor, nn.Module)) or not depth:
        written = inside and isinstance(value, Tensor) and not value.is_inference()
        yield value, value._version if written else 0
    elif isinstance(value, (Mapping, tuple, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _content(part, inside, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _content(vars(value), True, depth - 1)
    elif not inside:
        yield value, 0


def unroll(modules: Iterable[nn.Module], run: Callable[[], T]) -> tuple[list[Step], T]:
    """Call `run` with gradients enabled and return the calls of the modules, in order, and its result.

    Raises MeasurementError if a call leaves something in its arguments for a later call.
    """
    steps: list[Step] = []

    def stub_of(module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def stub(*args: Any, **kwargs: Any) -> Any:
            before = mapped(args, Tensor.clone), mapped(kwargs, Tensor.clone)  # samplers may write into both
            detached = mapped(args, Tensor.detach), mapped(kwargs, Tensor.detach)
            snapshot = Snapshot(detached)
            with torch.no_grad():
                output = forward(*detached[0], **detached[1])
            if snapshot.changed():
                raise not_copyable("it keeps something in its arguments from call to call, such as a cache")
            first_of(output)  # raises if it holds no tensor
            output = gathered(detached, output)
            leaves = mapped(output, lambda x: x.detach().clone().requires_grad_(x.is_floating_point()))
            steps.append(Step(module, *before, leaves))
            return mapped(plain(leaves), Tensor.clone)

        return stub

    with ExitStack() as stack, torch.enable_grad():
        for module in dict.fromkeys(modules):
            stack.enter_context(_replaced(module, stub_of(module)))
        return steps, run()


def rehearse(steps: Sequence[Step], samples: int, run: Callable[[], object]) -> list[tuple[Step, list[torch.Size]]]:
    """Repeat an unrolled run with one more sample to see how its arguments grow.

    No module computes: each call returns its recorded result, with rows repeated for one more sample. Returns each
    step, with a `SampleList` for each list of tensors that grew, and the argument shapes of the larger call in the
    order of `leaves_of`. samples: of the unrolled run. Raises MeasurementError if the larger run makes other calls.
    """
    rehearsed: list[tuple[Step, list[torch.Size]]] = []

    def stub(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if len(rehearsed) == len(steps) or steps[len(rehearsed)].module is not module:
            raise not_copyable("with one sample more it is called in another order")
        step = steps[len(rehearsed)]
        with torch.enable_grad():  # lists become tensors with a graph
            own, larger = paired((step.args, step.kwargs), (args, kwargs))
        rehearsed.append((replace(step, args=own[0], kwargs=own[1]), [leaf.shape for leaf in leaves_of(larger)]))
        return plain(mapped(step.returned, partial(_with_one_more, samples)))

    with ExitStack() as stack, torch.no_grad():
        for module in dict.fromkeys(step.module for step in steps):
            stack.enter_context(_replaced(module, partial(stub, module)))
        _try(run)
    if len(rehearsed) < len(steps):
        raise not_copyable(f"with one sample more it is called {len(rehearsed)} times, not {len(steps)}")
    return rehearsed


def _with_one_more(samples: int, tensor: Tensor) -> Tensor:
    """The tensor of `samples` samples with its first rows repeated for one more sample."""
    rows = torch.arange(len(tensor) * (samples + 1) // samples) % max(len(tensor), 1)
    return tensor.detach()[rows.to(tensor.device)]


def _try(run: Callable[[], object]) -> None:
    try:
        run()
    except MeasurementError:
        raise
    except Exception as error:  # a sampler may raise anything for results that it does not expect
        reason = " ".join(str(error).split())[:120]
        raise not_copyable(
            f"with one sample more the rows of no tensor grow ({type(error).__name__}: {reason})"
        ) from error


def not_copyable(why: str) -> MeasurementError:
    """The error for a call into which copies of a batch cannot be put."""
    return MeasurementError(
        f"a module cannot be called with several copies of a batch: {why}; measure with --method exhaustive"
    )


@contextmanager
def _replaced(module: nn.Module, stub: Callable[..., Any]) -> Iterator[None]:
    """Within the `with`, a call of the module calls `stub`."""
    forward, own = module.forward, "forward" in vars(module)
    module.forward = stub
    try:
        yield
    finally:
        del module.forward
        if own:
            module.forward = forward


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the `with`, no parameter of the modules requires gradients."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def outputs_of(steps: Iterable[Step]) -> list[Tensor]:
    """The outputs of all steps, step after step."""
    return [output for step in steps for output in step.outputs]


def pull(steps: Sequence[Step], index: int, cotangents: Sequence[Tensor]) -> list[Tensor]:
    """The gradients on the `outputs_of` earlier steps, given those on the inputs of a step.

    cotangents: shaped like `steps[index].inputs`.
    """
    before = outputs_of(steps[:index])
    gradients = torch.autograd.grad(
        steps[index].inputs, before, list(cotangents), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return list(gradients)
