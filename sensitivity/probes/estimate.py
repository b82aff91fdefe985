"""Sensitivity by probes: what the changes of every layer's output do to every metric, from a few backward passes.

For a random vector v on a reading (the denoiser's output, the image, its embedding) one backward pass gives
g = d(v.reading)/d(layer output) at every layer. What a scheme changes in its layer's own output, dy, is a local
product. To first order v.(change of the reading) = sum of g.dy over all elements of the output and all steps, and its
square, on average over v, is the loss (`Metric.probe`). The sum comes before the square: errors that cancel count as
cancelling, which a sum of squares by element (diagonal Fisher, as in NVIDIA ModelOpt's `auto_quantize`) cannot see.
The sums are kept as they are, the responses: those of several layers add up before they are squared, so that the loss
of any whole plan, cross terms included, needs no further run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bitplan.sensitivity.metrics import Metric
from bitplan.sensitivity.metrics.learned import Encoder
from bitplan.sensitivity.probes.shares import Shares, hooked, shares_of, single_layers
from bitplan.sensitivity.probes.unroll import Step, outputs_of, pull
from bitplan.sensitivity.runs.nested import repeated, tensors_of
from bitplan.sensitivity.runs.outcome import Outcome, read

STACKED = 1 << 26  # numbers of changed outputs that are multiplied at once
Product = Callable[[Tensor, Tensor], Tensor]
Changes = Callable[[Tensor], Iterator[tuple[str, Tensor]]]  # a layer's input -> (scheme, change of its output)
Responses = dict[tuple[str, str], dict[str, Tensor]]  # (layer, scheme) -> metric -> (K, S): K probes, S samples


@dataclass(frozen=True, eq=False)
class Chain:
    """A full-precision run, unrolled. steps: the calls of its parts; result: (P, ...), one a sample, whose graph ends
    in the outputs of the steps; kept: the places of the steps whose own output is a reading; visited: of those that are
    differentiated, with how many steps each stands for. What a step that is not visited makes of its input is left out
    of the gradients, so that they pass it through the scheduler alone. batched: of each step, which of its tensors hold
    the batch (`unroll.batched`); guided: the modules whose batch may be several times that of the samples, one behind
    the other, as guidance has it."""

    steps: Sequence[Step]
    result: Tensor
    kept: tuple[int, ...]
    visited: Mapping[int, float]
    batched: Sequence[tuple[bool, ...]]
    guided: frozenset[nn.Module]

    def told(self, place: int) -> bool:
        """Whether it is known of which sample each row of a step is."""
        rows, samples = self.steps[place].rows, len(self.result)
        return rows == samples or (self.steps[place].module in self.guided and rows % samples == 0)


@dataclass(frozen=True, eq=False)
class Probes:
    """K weightings of one reading. at: step -> for each of its outputs (K, B, ...), their gradients.

    follows: whether gradients go on to earlier steps, instead of being about one step alone (denoised).
    """

    metric: str
    count: int
    at: Mapping[int, Sequence[Tensor]]
    follows: bool


def draw(
    chain: Chain, metric: Metric, count: int, generator: torch.Generator, encoder: Encoder | None = None,
    texts: Tensor | None = None,
) -> Probes:  # fmt: skip
    """`count` probes of a metric, one for a signed metric: it has a gradient of its own."""
    if metric.reads == "denoised":
        return Probes(metric.name, count, {place: _on_output(chain.steps[place], metric, count, generator)
                                           for place in chain.kept}, False)  # fmt: skip
    count = 1 if metric.signed else count
    with torch.enable_grad():
        reading = read(Outcome(outputs=chain.result), [metric.reads], encoder, texts)[metric.reads]
    weights = [metric.probe(reading.detach(), generator).to(reading.dtype) for _ in range(count)]
    ask = partial(torch.autograd.grad, retain_graph=True, allow_unused=True, materialize_grads=True)
    leaves = outputs_of(chain.steps)
    whole = [torch.stack(some) for some in zip(*(ask(reading, leaves, one) for one in weights), strict=True)]
    return Probes(metric.name, count, _by_step(chain.steps, whole), True)


def _on_output(step: Step, metric: Metric, count: int, generator: torch.Generator) -> list[Tensor]:
    """Weightings of a step's first output; nothing is asked of the others."""
    full = step.output.detach()
    first = torch.stack([metric.probe(full, generator) for _ in range(count)])
    return [first, *(other.new_zeros(count, *other.shape) for other in step.outputs[1:])]


def _by_step(steps: Sequence[Step], tensors: Sequence[Tensor]) -> dict[int, list[Tensor]]:
    """What comes in the order of `outputs_of`, by the place of the step."""
    some = iter(tensors)
    return {place: [next(some) for _ in step.outputs] for place, step in enumerate(steps)}


def probe(
    chain: Chain, layers: Mapping[str, nn.Module], changes: Mapping[str, Changes], probes: Sequence[Probes],
    rows: int = 256, product: Product = torch.bmm,
) -> Iterator[tuple[int, Responses]]:  # fmt: skip
    """Follow the chain backwards once; yields each visited step's place and what the layers' schemes do in it.

    layers, changes: by layer; rows: the most that one call gets; product: of (R, K, N) gradients and
    (R, N, S) changes to (R, K, S), their sum over N, unless other scores are to be compared with it. The responses on
    images of all steps are to be added up; those on denoised outputs are of that step's samples. Layers whose rows
    are of no sample that can be told are left out: nothing tells the probes apart there
    (`bitplan.sensitivity.probes.shares`).
    """
    single: dict[nn.Module, frozenset[str]] = {}
    for place in sorted(chain.visited, reverse=True):
        found: Responses = {}
        left_out: set[str] = set()
        step, batched = chain.steps[place], chain.batched[place]
        if step.module not in single:  # what a module does with a row for all, it does at each step
            single[step.module] = single_layers(step, batched, layers)
        shares = shares_of(step, batched, layers, single[step.module])
        for portion in _portions(probes, place, max(1, rows // step.rows)):
            left_out |= layers.keys() - _visit(chain, place, (layers, changes, product, shares), portion, found)
        yield place, {pair: sums for pair, sums in found.items() if pair[0] not in left_out}


def joined(chain: Chain, found: Mapping[int, Responses], probes: Sequence[Probes]) -> Responses:
    """The responses of all visited steps: those on the result added up, each as often as its step stands for others,
    and those on denoised outputs side by side, which are 0 for a layer that acts elsewhere."""
    metrics: Responses = {pair: {} for some in found.values() for pair in some}
    for pair in metrics:
        for mine in probes:
            sums = {at: found[at][pair][mine.metric] for at in sorted(found) if mine.metric in found[at].get(pair, {})}
            if mine.follows and sums:
                metrics[pair][mine.metric] = torch.stack([one * chain.visited[at] for at, one in sums.items()]).sum(0)
            elif not mine.follows:
                whole = [sums.get(at, torch.zeros(mine.count, chain.steps[at].rows)) for at in chain.kept]
                metrics[pair][mine.metric] = torch.cat(whole, 1)
    return metrics


@dataclass(frozen=True, eq=False)
class _Part:
    """Probes `start` to `stop`, at the rows of one call that begin at `offset` copies."""

    probes: Probes
    start: int
    stop: int
    offset: int


def _portions(probes: Sequence[Probes], place: int, room: int) -> Iterator[list[_Part]]:
    """What fits into calls of `room` copies of the batch."""
    portion: list[_Part] = []
    used = 0
    for mine in probes:
        start = 0
        while place in mine.at and start < mine.count:
            stop = min(mine.count, start + room - used)
            portion.append(_Part(mine, start, stop, used))
            used, start = used + stop - start, stop
            if used == room:
                yield portion
                portion, used = [], 0
    if portion:
        yield portion


def _visit(
    chain: Chain, place: int, watched: tuple[Mapping[str, nn.Module], Mapping[str, Changes], Product, Shares],
    portion: list[_Part], found: Responses,
) -> set[str]:  # fmt: skip
    """One call with a copy of the batch for each probe, and its backward pass; the layers that it reached."""
    reached: set[str] = set()
    step, (layers, changes, product, shares) = chain.steps[place], watched
    copies = sum(part.stop - part.start for part in portion)
    cotangents = [
        torch.cat([part.probes.at[place][i][part.start : part.stop].flatten(0, 1) for part in portion])
        for i in range(len(step.outputs))
    ]

    def take(layer: str, x: Tensor, g: Tensor) -> None:
        if not chain.told(place):
            return
        reached.add(layer)
        g_rkn = g.reshape(copies, len(x), -1).transpose(0, 1)
        owned = shares.of(layer, len(x)) or ()
        for scheme, sums in _products(partial(product, g_rkn), iter(changes[layer](x)), owned):
            _add(found.setdefault((layer, scheme), {}), sums, portion, len(chain.result))

    args, kwargs = repeated((step.args, step.kwargs), chain.batched[place], copies)
    given = tensors_of((args, kwargs))
    inputs = [tensor for tensor in given if tensor.requires_grad]
    for tensor in [tensor for tensor in given if tensor.is_floating_point()][:1]:
        tensor.requires_grad_()  # a checkpointed block needs one input with a gradient
    with torch.enable_grad(), _watching(layers, copies, shares, take):
        outputs = step.again(args, kwargs)
        ends = [(x, v.to(x.dtype)) for x, v in zip(outputs, cotangents, strict=True) if x.requires_grad]
        if not ends:  # the first call, and it runs none of the layers
            return reached
        torch.autograd.backward(*map(list, zip(*ends, strict=True)))
    grads = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in inputs]
    for part in portion if inputs else ():
        if part.probes.follows:
            _follow(chain, place, part, grads)
    return reached


def _follow(chain: Chain, place: int, part: _Part, grads: Sequence[Tensor]) -> None:
    """Hand the gradients on the inputs of a step to the outputs of the steps before it."""
    rows = [len(tensor) for tensor in chain.steps[place].inputs]
    for copy, k in enumerate(range(part.start, part.stop), part.offset):
        mine = [grad[copy * n : (copy + 1) * n] for grad, n in zip(grads, rows, strict=True)]
        for earlier, some in _by_step(chain.steps[:place], pull(chain.steps, place, mine)).items():
            for whole, more in zip(part.probes.at[earlier], some, strict=True):
                whole[k] += more


def _watching(
    layers: Mapping[str, nn.Module], copies: int, shares: Shares, take: Callable[[str, Tensor, Tensor], None]
) -> AbstractContextManager[None]:
    """Calls `take` with the layer, its input for one copy, and the gradient on its output for all copies."""

    def watch(layer: str, narrow: Tensor, output: Tensor) -> Tensor | None:
        given, made = shares.widened(layer, narrow, output, copies)
        other = None if made is output else made
        if not torch.is_grad_enabled() or not given.ndim or len(given) % copies:
            return other  # a checkpoint's first pass; one input for all
        if not shares.of(layer, len(given) // copies):
            return other
        x = given.detach()[: len(given) // copies].clone()
        if made.requires_grad:
            made.register_hook(lambda g: take(layer, x, g))
            return other
        leaf = made.detach().requires_grad_()
        leaf.register_hook(lambda g: take(layer, x, g))
        return leaf.clone()  # whoever comes next may write into it

    return hooked(layers, watch)


@torch.no_grad()
def _products(
    product: Callable[[Tensor], Tensor], changes: Iterator[tuple[str, Tensor]], shares: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """(scheme, (K, B) sums). shares: how many of a layer's rows each of the batch has, one after the other."""
    while some := list(_stack(changes)):
        dy_rns = torch.stack([change.flatten(1) for _, change in some], -1)
        for (scheme, _), sums in zip(some, product(dy_rns).float().permute(2, 1, 0), strict=True):
            yield scheme, torch.stack([mine.sum(1) for mine in sums.split(list(shares), 1)], 1)


def _stack(changes: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """As many as may be held side by side, at least one."""
    held = 0
    while held < STACKED and (change := next(changes, None)):
        held += change[1].numel()
        yield change


def _add(metrics: dict[str, Tensor], sums: Tensor, portion: Sequence[_Part], prompts: int) -> None:
    """Put the (K, B) sums of one call where they belong; guidance puts prompts behind each other in a batch."""
    for part in portion:
        some = sums[part.offset : part.offset + part.stop - part.start].cpu()
        if part.probes.follows:
            some = some.view(len(some), -1, prompts).sum(1)
        whole = metrics.setdefault(part.probes.metric, torch.zeros(part.probes.count, some.shape[1]))
        whole[part.start : part.stop] += some
