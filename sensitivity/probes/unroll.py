"""Unrolls a sampler's run into a chain of module calls that are differentiated backwards one call at a time.

The modules run without a graph and each output becomes a new leaf, while everything between the calls (guidance,
scheduler, decoder) keeps its graph. Gradients then flow back call by call, so that memory holds the graph of one call
alone, whatever the number of steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bitplan.sensitivity.probes.dependence import Dependence
from bitplan.sensitivity.probes.gradients import gradients_of
from bitplan.sensitivity.probes.writes import Snapshot, writes_into, written_unseen
from bitplan.sensitivity.runs.generators import moved, states
from bitplan.sensitivity.runs.nested import (
    copied,
    first_of,
    gathered,
    leaves_of,
    mapped,
    named_leaves,
    paired,
    plain,
    tensors_of,
)
from bitplan.sensitivity.shortage import is_shortage
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
        written: place in the arguments, as in `tensors_of` -> the content of that tensor after a call that wrote into
            it, another leaf.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    returned: Any
    written: Mapping[int, Tensor] = field(default_factory=dict)

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors of the result that require gradients, and those that the call wrote."""
        returned = (tensor for tensor in tensors_of(self.returned) if tensor.requires_grad)
        return (*returned, *self.written.values())

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

    @property
    def names(self) -> Iterator[str]:
        """The names of the argument tensors, in the order of `leaves_of`, such as `added_cond_kwargs.time_ids`."""
        parameters = [*inspect.signature(type(self.module).forward).parameters][1:]
        for name, _ in named_leaves(self.args):
            place, dot, rest = name.partition(".")
            known = parameters[int(place)] if int(place) < len(parameters) else f"number {place}"
            yield f"{known}{dot}{rest}"
        yield from (name for name, _ in named_leaves(self.kwargs))

    def again(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Call the module with other arguments and return its tensors in the order of `outputs`."""
        arguments = copied((plain(tuple(args)), plain(dict(kwargs))))  # the module may write into them
        tensors, before = tensors_of(arguments), mapped(arguments, lambda tensor: tensor)
        output = gathered(before, self.module(*arguments[0], **arguments[1]))
        returned = [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]
        return [*returned, *(tensors[place] for place in self.written)]


def unroll(modules: Iterable[nn.Module], run: Callable[[], T]) -> tuple[list[Step], T]:
    """Call `run` with gradients enabled and return the calls of the modules, in order, and its result.

    The graph of an argument or of the result ends in outputs of earlier calls; what depends on none has no graph.
    Raises MeasurementError if a call leaves something in its arguments for a later call, or the run writes into a
    result where torch does not see it, so that gradients miss it.
    """
    steps: list[Step] = []
    given: list[Any] = []
    dependence = Dependence()

    def stub_of(module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def stub(*args: Any, **kwargs: Any) -> Any:
            with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
                step, returned = _taken(module, forward, (args, kwargs), dependence)
            steps.append(step)
            given.append(returned)
            return returned

        return stub

    with ExitStack() as stack, torch.enable_grad():
        for module in dict.fromkeys(modules):
            stack.enter_context(_replaced(module, stub_of(module)))
        result = run()
    _check_seen(steps, given)
    return steps, dependence.cut(result)


def _check_seen(steps: Sequence[Step], given: Sequence[Any]) -> None:
    """Raises MeasurementError if the run wrote into what it was `given` by a call where torch does not see it."""
    if any(written_unseen(back, plain(step.returned)) for back, step in zip(given, steps, strict=True)):
        raise MeasurementError(
            "the run writes into what a module returned where torch does not see it, such as through numpy or .data, "
            "so that gradients miss it; measure with --method exhaustive"
        )


def _taken(
    module: nn.Module, forward: Callable[..., Any], arguments: tuple[tuple[Any, ...], dict[str, Any]],
    dependence: Dependence,
) -> tuple[Step, Any]:  # fmt: skip
    """Call a module without a graph; return the call and its result, whose graph begins in the outputs of the call."""
    before = dependence.cut(copied(arguments))  # samplers and modules may write into both
    tensors, snapshot, begin = tensors_of(arguments), Snapshot(arguments), states()
    versions = [writes_into(tensor) for tensor in tensors]
    with torch.no_grad():
        output = forward(*arguments[0], **arguments[1])
    if moved(begin):
        raise not_copyable("it draws random numbers")
    if snapshot.kept():
        raise not_copyable("it keeps something in its arguments from call to call, such as a cache")
    first_of(output)  # raises if it holds no tensor
    leaves = mapped(gathered(before, output), _leaf)
    written = {}
    for place, (tensor, version, was) in enumerate(zip(tensors, versions, tensors_of(before), strict=True)):
        if writes_into(tensor) != version and tensor.is_floating_point():
            written[place] = _leaf(tensor)
            tensor.copy_(written[place])  # the sampler reads what the call wrote
        elif writes_into(tensor) == version and not torch.allclose(tensor, was, 0, 0, equal_nan=True):
            raise not_copyable("it writes into its arguments where torch does not see it, such as through .data")
    step = Step(module, *before, leaves, written)
    dependence.add(step.outputs)
    return step, mapped(plain(leaves), Tensor.clone)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.is_floating_point())


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
    rows = torch.arange(len(tensor) * (samples + 1) // samples, dtype=torch.int64, device=tensor.device)
    return tensor.detach()[rows % max(len(tensor), 1)]


def _try(run: Callable[[], object]) -> None:
    try:
        run()
    except Exception as error:  # a sampler may raise anything for results that it does not expect
        if isinstance(error, MeasurementError) or is_shortage(error):
            raise
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
    return gradients_of(steps[index].inputs, before, list(cotangents))
