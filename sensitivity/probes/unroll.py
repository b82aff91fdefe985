"""A sampler's run as a chain of calls of its parts, to be differentiated backwards one call at a time.

They run without a graph and hand out each output as a new leaf, while everything between the calls (guidance,
scheduler, decoder) keeps its graph. Gradients of anything at the end then flow back call by call, so that the graph of
one call is all that is ever held, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bitplan.sensitivity.runs.nested import (
    SampleList,
    first_of,
    gathered,
    leaves_of,
    mapped,
    paired,
    plain,
    repeated,
    tensors_of,
)
from bitplan.sensitivity.table import MeasurementError

T = TypeVar("T")
SAME = 1e-3  # of the largest number: so far apart may the sums of another batch be


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a module. args and kwargs hold tensors whose graph ends in what earlier steps returned; returned:
    its tensors, (B, ...) each, are leaves of the graph after it. A list with a tensor for each sample is a `SampleList`
    in what is returned, and after `rehearse` in the arguments."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    returned: Any

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors that were returned and may have gradients."""
        return tuple(tensor for tensor in tensors_of(self.returned) if tensor.requires_grad)

    @property
    def output(self) -> Tensor:
        """The first of them, which is what the sampler is about."""
        return self.outputs[0]

    @property
    def rows(self) -> int:
        """B, the batch of the call."""
        return len(self.output)

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that depend on earlier steps, in the order in which `tensors_of` meets them."""
        return [tensor for tensor in tensors_of((self.args, self.kwargs)) if tensor.requires_grad]

    def again(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors that the module returns for such arguments, in the order of `outputs`."""
        given = tuple(plain(tuple(args))), plain(dict(kwargs))
        output = gathered(given, self.module(*given[0], **given[1]))
        return [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]


class Snapshot:
    """What the arguments of a call hold at one moment, in lists, mappings and other objects."""

    def __init__(self, arguments: object) -> None:
        self.arguments, self.held = arguments, list(_held(arguments))

    def changed(self) -> bool:
        """Whether something else is held by now: a later call would find it there."""
        now = list(_held(self.arguments))
        return len(now) != len(self.held) or any(
            one is not two or before != after for (one, before), (two, after) in zip(self.held, now, strict=True)
        )


def _held(value: object, inside: bool = False, depth: int = 8) -> Iterator[tuple[object, int]]:
    """All that a value holds, and how often it was written. inside: whether in an object, whose tensors alone count:
    it may learn other things when first used."""
    if isinstance(value, (Tensor, nn.Module)) or not depth:
        written = inside and isinstance(value, Tensor) and not value.is_inference()
        yield value, value._version if written else 0
    elif isinstance(value, (Mapping, tuple, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _held(part, inside, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _held(vars(value), True, depth - 1)
    elif not inside:
        yield value, 0


def unroll(modules: Iterable[nn.Module], run: Callable[[], T]) -> tuple[list[Step], T]:
    """Call `run` with gradients on, and return the modules' calls in their order and what it returned.
    Raises MeasurementError where a call finds in its arguments what an earlier one left there."""
    steps: list[Step] = []

    def stub_of(module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def stub(*args: Any, **kwargs: Any) -> Any:
            before = mapped(args, Tensor.clone), mapped(kwargs, Tensor.clone)  # samplers may write into both
            given = mapped(args, Tensor.detach), mapped(kwargs, Tensor.detach)
            kept = Snapshot(given)
            with torch.no_grad():
                output = forward(*given[0], **given[1])
            if kept.changed():
                raise _untold("it keeps something in its arguments from call to call, such as a cache")
            first_of(output)  # there must be one
            output = gathered(given, output)
            made = mapped(output, lambda x: x.detach().clone().requires_grad_(x.is_floating_point()))
            steps.append(Step(module, *before, made))
            return mapped(plain(made), Tensor.clone)

        return stub

    with ExitStack() as stack, torch.enable_grad():
        for module in dict.fromkeys(modules):
            stack.enter_context(_replaced(module, stub_of(module)))
        return steps, run()


def rehearse(steps: Sequence[Step], samples: int, run: Callable[[], object]) -> list[tuple[Step, list[torch.Size]]]:
    """Steps with their lists that have a tensor more for one sample more `SampleList`, and the shapes of what its call
    gets then, as `leaves_of` meets it.

    No module computes: each call is given back what it returned for `samples` samples, with rows repeated to be as many
    as it takes; steps, samples: of the run that was unrolled. Raises MeasurementError where the run calls otherwise.
    """
    found: list[tuple[Step, list[torch.Size]]] = []

    def more(tensor: Tensor) -> Tensor:
        rows = torch.arange(len(tensor) * (samples + 1) // samples) % max(len(tensor), 1)
        return tensor.detach()[rows.to(tensor.device)]

    def stub_of(module: nn.Module) -> Callable[..., Any]:
        def stub(*args: Any, **kwargs: Any) -> Any:
            if len(found) == len(steps) or steps[len(found)].module is not module:
                raise _untold("with one sample more it is called in another order")
            step = steps[len(found)]
            with torch.enable_grad():  # for the graph of what is put together
                given, larger = paired((step.args, step.kwargs), (args, kwargs))
            found.append((replace(step, args=given[0], kwargs=given[1]), [leaf.shape for leaf in leaves_of(larger)]))
            return plain(mapped(step.returned, more))

        return stub

    with ExitStack() as stack, torch.no_grad():
        for module in dict.fromkeys(step.module for step in steps):
            stack.enter_context(_replaced(module, stub_of(module)))
        _try(run)
    if len(found) < len(steps):
        raise _untold(f"with one sample more it is called {len(found)} times, not {len(steps)}")
    return found


def _try(run: Callable[[], object]) -> None:
    try:
        run()
    except MeasurementError:
        raise
    except Exception as error:  # whatever a sampler throws that is given what it does not expect
        reason = " ".join(str(error).split())[:120]
        raise _untold(
            f"with one sample more it is no tensor's rows that grow ({type(error).__name__}: {reason})"
        ) from error


def batched(step: Step, larger: Sequence[torch.Size]) -> tuple[bool, ...]:
    """Which of the tensors of a call, as `tensors_of` meets them, hold the batch along their first dimension, or as a
    list: those that grow with it. Others may have as many rows by chance: tokens, or numbers of steps.

    larger: of the same call with one sample more (see `rehearse`). Raises MeasurementError where copies of a batch
    could not be put into one call: something grows otherwise, nothing does, or what is of the whole batch depends on a
    sample.
    """
    given = leaves_of((step.args, step.kwargs))
    if len(given) != len(larger):
        raise _untold(f"it gets {len(given)} tensors, and {len(larger)} with one sample more")
    grows = tuple(leaf.shape != after for leaf, after in zip(given, larger, strict=True))
    if not any(grows):
        raise _untold("its batch does not show in its arguments")
    for leaf, after, grown in zip(given, larger, grows, strict=True):
        if grown and not _grown(leaf.shape, after, step.rows):
            shapes = f"{tuple(leaf.shape)} for {step.rows} rows and {tuple(after)} for more"
            raise _untold(f"an argument has the shape {shapes}")
        if leaf.requires_grad and not grown:
            raise _untold(f"an argument for all samples, {tuple(leaf.shape)}, depends on earlier calls")
    grown_by = {Fraction(b[0], a.shape[0]) for a, b, grown in zip(given, larger, grows, strict=True) if grown}
    if len(grown_by) > 1:
        raise _untold("its arguments do not grow alike with the batch")
    if any(len(output) != step.rows for output in step.outputs):
        raise _untold(f"it returns {', '.join(str(tuple(x.shape)) for x in step.outputs)} for {step.rows} rows")
    if any(isinstance(x, SampleList) or (grown and len(x) > step.rows) for x, grown in zip(given, grows, strict=True)):
        _check_order(step, grows)
    return grows


def _grown(before: torch.Size, after: torch.Size, rows: int) -> bool:
    """Whether an argument has the batch along its first dimension, once or several times: a text for each frame."""
    return bool(before) and not before[0] % rows and before[0] > 0 and before[1:] == after[1:]


def _check_order(step: Step, grows: Sequence[bool]) -> None:
    """Run two copies, one behind the other. Raises MeasurementError where they do not both come out as one does: where
    an argument has several rows for a sample, these may not follow each other."""
    args, kwargs = repeated((step.args, step.kwargs), grows, 2)
    with torch.no_grad():
        twice = step.again(args, kwargs)
    for one, two in zip(step.outputs, twice, strict=True):
        if two.shape[0] != 2 * one.shape[0] or not alike(torch.cat([one, one]), two):
            raise _untold("an argument has several rows for each of the batch, in an order of its own")


def alike(one: Tensor, two: Tensor) -> bool:
    """Whether they are the same but for the rounding of another batch."""
    near = max(SAME, 8 * torch.finfo(one.dtype).eps) * float(one.detach().abs().max()) if one.numel() else 0.0
    return torch.allclose(one, two, rtol=0, atol=near)


def _untold(why: str) -> MeasurementError:
    return MeasurementError(
        f"a module cannot be called with several copies of a batch: {why}; measure with --method exhaustive"
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


def outputs_of(steps: Iterable[Step]) -> list[Tensor]:
    """All tensors that the steps returned, step after step."""
    return [output for step in steps for output in step.outputs]


def pull(steps: Sequence[Step], at: int, cotangents: Sequence[Tensor]) -> list[Tensor]:
    """What gradients on the inputs of step `at` mean for the `outputs_of` the steps before it: one tensor each.

    cotangents: like `steps[at].inputs`.
    """
    before = outputs_of(steps[:at])
    found = torch.autograd.grad(
        steps[at].inputs, before, list(cotangents), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return list(found)
