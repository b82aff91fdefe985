"""Resume a run at the layer where it first changes: what ended before it returns what it returned in full precision.

Nothing that a model computes before the first call of a layer depends on that layer. So one run is recorded with every
call of every module in it; later, calls that had ended before the layer's first one are not computed but looked up,
outermost first. The order is found by running, never by names. Not looked up, but computed as ever, are calls that a
look-up could not stand for: those that write into their arguments or draw from torch's own random numbers, whose output
is written into afterwards, or whose arguments or output hold other things than tensors and plain values.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

LIMIT = 2 << 30  # bytes of outputs that a recorded run may hold
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


@dataclass(frozen=True, eq=False)
class Output:
    """What a call returned, as a tree, with the version (writes so far) of each of its leaves."""

    leaves: tuple[Any, ...]
    spec: TreeSpec
    versions: tuple[int | None, ...]

    def unwritten(self) -> bool:
        """Whether all is a tensor that nothing wrote into since, or a plain value."""
        return all(_is_known(leaf) for leaf in self.leaves) and self.versions == _versions(self.leaves)


@dataclass(frozen=True, eq=False)
class CallRecord:
    """One call in a recorded run. start, end: its place among all starts and ends; output: None if not to be reused."""

    module: nn.Module
    start: int
    end: int
    output: Output | None


Queues = dict[nn.Module, list[Output | None]]


@dataclass(frozen=True, eq=False)
class Prefix:
    """A recorded run: its calls in the order of their starts, and when each module was first called."""

    calls: tuple[CallRecord, ...]
    first: Mapping[nn.Module, int]

    def ready(self, layer: nn.Module, known: tuple[nn.Module, object] | None = None) -> Queues:
        """The next calls of each module when resuming at `layer`: their outputs, None for those to compute.

        A module that is not here computes; so does one whose list is used up. All is ready if the run never calls
        the layer. known: as in `resumed`.
        """
        cut, covered, queues = self.first.get(layer, math.inf), -1, defaultdict(list)
        for call in self.calls:
            if call.start >= cut or call.start < covered:  # too late, or inside a call that is looked up
                continue
            output = call.output if call.end < cut else None
            if known and call.module is known[0] and call.start == self.first[known[0]] and call.output is not None:
                output = _output(known[1])
            covered = call.end if output else covered
            queues[call.module].append(output)
        return {module: queue for module, queue in queues.items() if any(queue)}


def record(
    roots: Iterable[nn.Module], run: Callable[[], object], limit: int = LIMIT, deepest: int | None = None
) -> Prefix:
    """Call `run` once and record every call of the modules in `roots`.

    limit: bytes of outputs to hold (memory shared by outputs counts once); beyond it the outputs of the most deeply
    nested calls are dropped, and computed anew when resuming. deepest: hold none from below so many nested calls.
    """
    recorder = _Recorder(limit, math.inf if deepest is None else deepest)
    modules = dict.fromkeys(module for root in roots for module in root.modules())
    with _forwards({module: partial(recorder.call, module, module.forward) for module in modules}):
        run()
    return recorder.prefix()


@contextmanager
def resumed(prefix: Prefix, layer: nn.Module, known: tuple[nn.Module, object] | None = None) -> Iterator[None]:
    """For the length of the `with`, the same run as was recorded skips what ended before its first call of `layer`.

    Only `layer` may compute otherwise than it did then, and only where it is called. known: a module and what its first
    call returns with `layer` as it is now; not used where `layer` came before that call, or where a look-up could not
    stand for it.
    """
    queues = prefix.ready(layer, known)
    with _forwards({m: partial(_look_up, iter(queue), m.forward) for m, queue in queues.items()}):
        yield


def _look_up(queue: Iterator[Output | None], forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    output = next(queue, None)
    if output is None:
        return forward(*args, **kwargs)
    return tree_unflatten(output.leaves, output.spec)  # containers made anew: the caller may change them


@contextmanager
def _forwards(made: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Gives modules another `forward` for a while, so that calls past `__call__` are seen too."""
    before = {module: module.__dict__.get("forward") for module in made}
    try:
        for module, forward in made.items():
            module.forward = forward
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward


@dataclass
class _Recorder:
    """What is known while a run is recorded. held: how many outputs hold each block of memory, by its address."""

    limit: int
    deepest: float
    moment: int = 0
    depth: int = 0
    bytes: int = 0
    calls: list[CallRecord] = field(default_factory=list)
    held: Counter[int] = field(default_factory=Counter)
    deep: list[tuple[int, int]] = field(default_factory=list)  # (-depth, place in calls) of what is held

    def call(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start, given, luck = self._tick(), _output((args, kwargs)), _luck()
        self.depth += 1
        try:
            made = forward(*args, **kwargs)
        finally:
            self.depth -= 1
        after = _output((args, kwargs))
        same = given.spec == after.spec and all(a is b for a, b in zip(given.leaves, after.leaves, strict=True))
        pure = same and given.unwritten() and all(map(torch.equal, luck, _luck()))
        output = _output(made)
        keep = pure and output.unwritten() and self.depth <= self.deepest
        self.calls.append(CallRecord(module, start, self._tick(), output if keep else None))
        if keep:
            self._hold(output)
        return made

    def prefix(self) -> Prefix:
        calls = [c if c.output is None or c.output.unwritten() else replace(c, output=None) for c in self.calls]
        calls.sort(key=lambda call: call.start)
        return Prefix(tuple(calls), {call.module: call.start for call in reversed(calls)})

    def _tick(self) -> int:
        self.moment += 1
        return self.moment

    def _hold(self, output: Output) -> None:
        for address, size in _memory(output):
            self.bytes += 0 if self.held[address] else size
            self.held[address] += 1
        heappush(self.deep, (-self.depth, len(self.calls) - 1))
        while self.bytes > self.limit:
            self._drop(heappop(self.deep)[1])

    def _drop(self, place: int) -> None:
        call = self.calls[place]
        assert call.output is not None
        for address, size in _memory(call.output):
            self.held[address] -= 1
            self.bytes -= 0 if self.held[address] else size
        self.calls[place] = replace(call, output=None)


def _output(tree: object) -> Output:
    leaves, spec = tree_flatten(tree)
    return Output(tuple(leaves), spec, _versions(leaves))


def _versions(leaves: Iterable[Any]) -> tuple[int | None, ...]:
    return tuple(leaf._version if isinstance(leaf, torch.Tensor) and _is_known(leaf) else None for leaf in leaves)


def _is_known(leaf: object) -> bool:
    """A plain value or a tensor that counts the writes into it, which those of inference mode do not."""
    return not leaf.is_inference() if isinstance(leaf, torch.Tensor) else isinstance(leaf, _PLAIN)


def _memory(output: Output) -> list[tuple[int, int]]:
    """The address and bytes of each block of memory that an output keeps alive."""
    storages = [leaf.untyped_storage() for leaf in output.leaves if isinstance(leaf, torch.Tensor)]
    return list({storage.data_ptr(): storage.nbytes() for storage in storages}.items())


def _luck() -> list[torch.Tensor]:
    """The states of torch's own random numbers."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]
