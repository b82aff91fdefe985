"""One call of a step with a copy of the batch for each probe, its backward pass, and the responses that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bitplan.sensitivity.probes.chain import Chain, Probes, by_step
from bitplan.sensitivity.probes.gradients import differentiating
from bitplan.sensitivity.probes.shares import Shares, hooked
from bitplan.sensitivity.probes.unroll import pull
from bitplan.sensitivity.runs.nested import repeated, tensors_of

STACKED = 1 << 26  # numbers of output changes that are multiplied at once
Product = Callable[[Tensor, Tensor], Tensor]
Changes = Callable[[Tensor], Iterator[tuple[str, Tensor]]]  # a layer's input -> (scheme, change of its output)


class Responses(dict[tuple[str, str], dict[str, Tensor]]):
    """(layer, scheme) -> metric -> (K, S) of K probes and S samples.

    Attributes:
        unknown: the layers that ran on rows whose samples are not known, so that their responses are not whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unknown: set[str] = set()

    def without(self, layers: set[str]) -> Responses:
        """These responses, in which those of some layers are removed."""
        for pair in [pair for pair in self if pair[0] in layers]:
            del self[pair]
        return self


@dataclass(frozen=True, eq=False)
class Subjects:
    """The layers to probe.

    Attributes:
        layers: name -> module.
        changes: name -> the output changes of its schemes.
        product: (R, K, N) gradients and (R, N, S) changes to (R, K, S), their sum over N.
    """

    layers: Mapping[str, nn.Module]
    changes: Mapping[str, Changes]
    product: Product


@dataclass(frozen=True, eq=False)
class Part:
    """Probes `start` to before `stop`, whose copies of the batch begin at copy `offset` of one call."""

    probes: Probes
    start: int
    stop: int
    offset: int


def portions(probes: Sequence[Probes], index: int, room: int) -> Iterator[list[Part]]:
    """Divide the probes of a step into calls of at most `room` copies of the batch."""
    portion: list[Part] = []
    used = 0
    for each in probes:
        start = 0
        while index in each.gradients and start < each.count:
            stop = min(each.count, start + room - used)
            portion.append(Part(each, start, stop, used))
            used, start = used + stop - start, stop
            if used == room:
                yield portion
                portion, used = [], 0
    if portion:
        yield portion


@dataclass(frozen=True, eq=False)
class Visit:
    """One call of a step with a copy of the batch for each probe of a portion, and its backward pass.

    Attributes:
        chain, index: the step.
        subjects: the layers to probe.
        shares: the rows of each sample.
        portion: the probes.
        responses: collects the responses.
    """

    chain: Chain
    index: int
    subjects: Subjects
    shares: Shares
    portion: list[Part]
    responses: Responses

    @property
    def copies(self) -> int:
        """The number of copies of the batch."""
        return sum(part.stop - part.start for part in self.portion)

    def run(self) -> set[str]:
        """Run both passes, add up the responses, and return the layers that the backward pass reached."""
        reached: set[str] = set()
        step = self.chain.steps[self.index]
        args, kwargs = repeated((step.args, step.kwargs), self.chain.batched[self.index], self.copies)
        arguments = tensors_of((args, kwargs))
        inputs = [tensor for tensor in arguments if tensor.requires_grad]
        for tensor in [tensor for tensor in arguments if tensor.is_floating_point()][:1]:
            tensor.requires_grad_()  # a checkpointed block needs one input with a gradient
        cotangents, take = self._cotangents(), partial(self._take, reached)
        with (
            torch.enable_grad(),
            observed(self.subjects.layers, self.copies, self.shares, take, self.responses.unknown.add),
            differentiating(f"a call of {type(step.module).__name__}"),
        ):
            outputs = step.again(args, kwargs)
            ends = [(x, v.to(x.dtype)) for x, v in zip(outputs, cotangents, strict=True) if x.requires_grad]
            if not ends:  # the first call, if it runs none of the layers
                return reached
            torch.autograd.backward(*map(list, zip(*ends, strict=True)))
        gradients = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in inputs]
        for part in self.portion if inputs else ():
            if part.probes.propagates:
                _propagate(self.chain, self.index, part, gradients)
        return reached

    def _cotangents(self) -> list[Tensor]:
        """The weights of each output, copy after copy."""
        parts = [(part.probes.gradients[self.index], slice(part.start, part.stop)) for part in self.portion]
        return [
            torch.cat([gradients[i][own].flatten(0, 1) for gradients, own in parts])
            for i in range(len(self.chain.steps[self.index].outputs))
        ]

    def _take(self, reached: set[str], layer: str, x: Tensor, gradient: Tensor) -> None:
        """Add the responses of one call of a layer. x: its input for one copy; gradient: on its output, all copies."""
        owners = self.chain.owners[self.index]
        if owners is None:
            self.responses.unknown.add(layer)
            return
        reached.add(layer)
        g_rkn = gradient.reshape(self.copies, len(x), -1).transpose(0, 1)
        rows = self.shares.of(layer, len(x)) or ()
        product = partial(self.subjects.product, g_rkn)
        for scheme, sums in _products(product, iter(self.subjects.changes[layer](x)), rows):
            _add(self.responses.setdefault((layer, scheme), {}), sums, self.portion, (owners, len(self.chain.result)))


def _propagate(chain: Chain, index: int, part: Part, gradients: Sequence[Tensor]) -> None:
    """Add the gradients on the inputs of a step to those on the outputs of earlier steps."""
    inputs = chain.steps[index].inputs
    for copy, k in enumerate(range(part.start, part.stop), part.offset):
        own = [_copy(gradient, tensor, copy) for gradient, tensor in zip(gradients, inputs, strict=True)]
        for earlier, pulled in by_step(chain.steps[:index], pull(chain.steps, index, own)).items():
            for whole, more in zip(part.probes.gradients[earlier], pulled, strict=True):
                whole[k] += more


def _copy(gradient: Tensor, tensor: Tensor, copy: int) -> Tensor:
    """The part of the gradient for one copy of the batch of a tensor."""
    return gradient if gradient.shape == tensor.shape else gradient[copy * len(tensor) : (copy + 1) * len(tensor)]


def observed(
    layers: Mapping[str, nn.Module], copies: int, shares: Shares, take: Callable[[str, Tensor, Tensor], None],
    refuse: Callable[[str], None],
) -> AbstractContextManager[None]:  # fmt: skip
    """Within it, `take` gets each layer, its input for one copy, and the gradient on its output for all copies, and
    `refuse` each layer that runs on rows whose samples are not known."""

    def observe(layer: str, narrow: Tensor, output: Tensor) -> Tensor | None:
        wide, widened = shares.widened(layer, narrow, output, copies)
        replacement = None if widened is output else widened
        if not torch.is_grad_enabled() or not wide.numel():
            return replacement  # the first pass of a checkpoint, or no row of any sample
        order = shares.order(layer, len(wide), copies) if wide.ndim else None
        if order is None or not shares.of(layer, len(wide) // copies):
            refuse(layer)  # such as one input for all samples
            return replacement
        x = order.one_copy(wide.detach())
        if widened.requires_grad:
            widened.register_hook(lambda g: take(layer, x, order.by_copy(g)))
            return replacement
        leaf = widened.detach().requires_grad_()
        leaf.register_hook(lambda g: take(layer, x, order.by_copy(g)))
        return leaf.clone()  # later operations may write into it

    return hooked(layers, observe)


@torch.no_grad()
def _products(
    product: Callable[[Tensor], Tensor], changes: Iterator[tuple[str, Tensor]], rows: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """Yield (scheme, (K, B) sums). rows: the number of the layer's rows of each sample, one after the other."""
    while stacked := list(_stack(changes)):
        dy_rns = torch.stack([change.flatten(1) for _, change in stacked], -1)
        for (scheme, _), sums in zip(stacked, product(dy_rns).float().permute(2, 1, 0), strict=True):
            yield scheme, torch.stack([own.sum(1) for own in sums.split(list(rows), 1)], 1)


def _stack(changes: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """As many changes as may be held at once, at least one."""
    held = 0
    while held < STACKED and (change := next(changes, None)):
        held += change[1].numel()
        yield change


def _add(
    metrics: dict[str, Tensor], sums: Tensor, portion: Sequence[Part], samples: tuple[Sequence[int], int]
) -> None:  # fmt: skip
    """Add the (K, B) sums of one call to the responses. samples: that of each of the B rows, and their number."""
    owners, number = samples
    for part in portion:
        own = sums[part.offset : part.offset + part.stop - part.start].cpu()
        if part.probes.propagates:
            own = own.new_zeros(len(own), number).index_add_(
                1, torch.tensor(owners, dtype=torch.int64, device="cpu"), own
            )
        empty = own.new_zeros(part.probes.count, own.shape[1])
        whole = metrics.setdefault(part.probes.metric, empty)
        whole[part.start : part.stop] += own
