"""Resumes a run at the first call of a changed layer: earlier calls return their recorded results.

Nothing that a model computes before the first call of a layer depends on that layer. So one run is recorded with every
call of every module. A resumed run looks up the results of calls that ended before the layer's first call, outermost
calls first. The order is that of the recorded run, whatever the names. Some calls are computed again, since a look-up
would not equal them: those that write into their arguments or draw torch's random numbers, whose output is written into
later, or whose arguments or output hold anything but tensors and plain values. Writes are found by the contents, since
torch does not count those through numpy or `.data`; and each look-up gives copies, into which its caller may write.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from heapq import heappop, heappush
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bitplan.sensitivity.runs.generators import moved, states
from bitplan.sensitivity.runs.nested import copied

LIMIT = 2 << 30  # bytes of outputs that a recording may hold
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


@dataclass(frozen=True, eq=False)
class Output:
    """The result of a call.

    Attributes:
        leaves: the leaves of the result as a tree; while a run is recorded, the module's own tensors.
        spec: the structure of that tree.
        versions: the number of writes into each leaf, None for a plain value.
        content: copies of the leaves.
    """

    leaves: tuple[Any, ...]
    spec: TreeSpec
    versions: tuple[int | None, ...]
    content: tuple[Any, ...]

    def unwritten(self) -> bool:
        """Whether each leaf is a plain value or a tensor that nothing wrote into since."""
        known = all(_is_known(leaf) for leaf in self.leaves) and self.versions == _versions(self.leaves)
        return known and all(map(_equal, self.leaves, self.content))

    def settled(self) -> Output:
        """The same with the copies alone."""
        return replace(self, leaves=self.content, versions=_versions(self.content))

    def given(self) -> Any:
        """The result in new containers of new copies, into which the caller may write."""
        return tree_unflatten(copied(self.content), self.spec)


@dataclass(frozen=True, eq=False)
class CallRecord:
    """One call of a recorded run.

    Attributes:
        module: the module.
        start, end: positions of its start and end among all starts and ends.
        output: its result, or None if it must be computed again.
    """

    module: nn.Module
    start: int
    end: int
    output: Output | None


Queues = dict[nn.Module, list[Output | None]]


@dataclass(frozen=True, eq=False)
class Prefix:
    """A recorded run.

    Attributes:
        calls: its calls in the order of their starts.
        first: module -> the start of its first call.
    """

    calls: tuple[CallRecord, ...]
    first: Mapping[nn.Module, int]

    @cached_property
    def _ends(self) -> list[int]:
        return sorted(call.end for call in self.calls if call.output is not None)

    def ended_before(self, layer: nn.Module) -> int:
        """The number of calls with a result that ended before the layer's first call."""
        return bisect(self._ends, self.first.get(layer, math.inf))

    def ready(self, layer: nn.Module, known: tuple[nn.Module, object] | None = None) -> Queues:
        """The results of each module's next calls in a run that resumes at `layer`, None for a call to compute.

        A module without a list computes, and so does one behind the end of its list. All results are ready if the run
        never calls the layer. known: see `resumed`.
        """
        cut, covered, queues = self.first.get(layer, math.inf), -1, defaultdict(list)
        for call in self.calls:
            if call.start >= cut or call.start < covered:  # too late, or inside a call that is looked up
                continue
            output = call.output if call.end < cut else None
            if known and call.module is known[0] and call.start == self.first[known[0]] and call.output is not None:
                output = _output(known[1], copied)
            covered = call.end if output else covered
            queues[call.module].append(output)
        return {module: queue for module, queue in queues.items() if any(queue)}


def record(
    roots: Iterable[nn.Module], run: Callable[[], object], limit: int = LIMIT, deepest: int | None = None
) -> Prefix:
    """Call `run` once and record every call of the modules in `roots`.

    Args:
        roots: the modules, with all modules inside them.
        run: the run.
        limit: bytes of outputs to hold, where shared memory counts once; beyond it the outputs of the most deeply
            nested calls are dropped and computed again.
        deepest: the depth of nested calls beyond which no output is held; None for no bound.
    """
    recorder = _Recorder(limit, math.inf if deepest is None else deepest)
    modules = dict.fromkeys(module for root in roots for module in root.modules())
    with _forwards({module: partial(recorder.call, module, module.forward) for module in modules}):
        run()
    return recorder.prefix()


@contextmanager
def resumed(prefix: Prefix, layer: nn.Module, known: tuple[nn.Module, object] | None = None) -> Iterator[None]:
    """Within the `with`, a repetition of the recorded run skips the calls that ended before the first call of `layer`.

    Only `layer` may have changed since the recording.

    Args:
        prefix: the recording.
        layer: the changed layer.
        known: a module and the result of its first call with the changed layer; ignored if `layer` is called before
            that call, or if the call must be computed again.
    """
    queues = prefix.ready(layer, known)
    with _forwards({m: partial(_look_up, iter(queue), m.forward) for m, queue in queues.items()}):
        yield


def _look_up(queue: Iterator[Output | None], forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    output = next(queue, None)
    if output is None:
        return forward(*args, **kwargs)
    return output.given()


@contextmanager
def _forwards(replacements: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Within the `with`, replaces the `forward` of modules, so that calls that bypass `__call__` are seen, too."""
    before = {module: module.__dict__.get("forward") for module in replacements}
    try:
        for module, forward in replacements.items():
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
    """The state of a recording.

    Attributes:
        limit: bytes of outputs to hold.
        deepest: the depth of calls beyond which no output is held.
        moment: the number of starts and ends so far.
        depth: the number of calls that are running.
        bytes: bytes of the held outputs.
        calls: the calls that have ended.
        copies: id of a tensor -> its copy, while an output holds that, since modules return what others returned.
        held: address of a block of memory -> the number of outputs that hold it.
        deep: (-depth, index in `calls`) of the held outputs, a heap.
    """

    limit: int
    deepest: float
    moment: int = 0
    depth: int = 0
    bytes: int = 0
    calls: list[CallRecord] = field(default_factory=list)
    copies: WeakValueDictionary[int, torch.Tensor] = field(default_factory=WeakValueDictionary)
    held: Counter[int] = field(default_factory=Counter)
    deep: list[tuple[int, int]] = field(default_factory=list)

    def call(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start, before, begin = self._tick(), _output((args, kwargs), copied), states()
        self.depth += 1
        try:
            result = forward(*args, **kwargs)
        finally:
            self.depth -= 1
        after, spec = tree_flatten((args, kwargs))
        same = before.spec == spec and all(a is b for a, b in zip(before.leaves, after, strict=True))
        pure = same and before.unwritten() and not moved(begin)
        output = _output(result, self._copied)
        keep = pure and output.unwritten() and self.depth <= self.deepest
        self.calls.append(CallRecord(module, start, self._tick(), output if keep else None))
        if keep:
            self._hold(output)
        return result

    def prefix(self) -> Prefix:
        calls = [replace(c, output=_settled(c.output)) for c in self.calls]
        calls.sort(key=lambda call: call.start)
        return Prefix(tuple(calls), {call.module: call.start for call in reversed(calls)})

    def _copied(self, leaves: tuple[Any, ...]) -> tuple[Any, ...]:
        """Copies of leaves, those of before where nothing changed."""
        return tuple(self._copy(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        copy = self.copies.get(id(tensor))
        if copy is None or not _equal(tensor, copy):
            copy = self.copies[id(tensor)] = tensor.detach().clone()
        return copy

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

    def _drop(self, index: int) -> None:
        call = self.calls[index]
        assert call.output is not None
        for address, size in _memory(call.output):
            self.held[address] -= 1
            self.bytes -= 0 if self.held[address] else size
        self.calls[index] = replace(call, output=None)


def _output(tree: object, copies: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Output:
    leaves, spec = tree_flatten(tree)
    known = all(_is_known(leaf) for leaf in leaves)
    return Output(tuple(leaves), spec, _versions(leaves), copies(tuple(leaves)) if known else ())


def _settled(output: Output | None) -> Output | None:
    return output.settled() if output is not None and output.unwritten() else None


def _equal(one: Any, other: Any) -> bool:
    """Whether two tensors, or plain values, are the same to the bit."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


def _versions(leaves: Iterable[Any]) -> tuple[int | None, ...]:
    return tuple(leaf._version if isinstance(leaf, torch.Tensor) and _is_known(leaf) else None for leaf in leaves)


def _is_known(leaf: object) -> bool:
    """Whether it is a plain value or a tensor that counts the writes into it; tensors of inference mode do not."""
    return not leaf.is_inference() if isinstance(leaf, torch.Tensor) else isinstance(leaf, _PLAIN)


def _memory(output: Output) -> list[tuple[int, int]]:
    """The address and bytes of each block of memory that an output keeps alive."""
    storages = [leaf.untyped_storage() for leaf in output.content if isinstance(leaf, torch.Tensor)]
    return list({storage.data_ptr(): storage.nbytes() for storage in storages}.items())
