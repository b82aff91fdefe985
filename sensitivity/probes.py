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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sensitivity.metrics import Encoder, Metric
from sensitivity.outcome import Outcome, read
from sensitivity.unroll import Step, first_of, pull, repeated, tensors_of

STACKED = 1 << 26  # numbers of changed outputs that are multiplied at once
Product = Callable[[Tensor, Tensor], Tensor]
Changes = Callable[[Tensor], Iterator[tuple[str, Tensor]]]  # a layer's input -> (scheme, change of its output)
Responses = dict[tuple[str, str], dict[str, Tensor]]  # (layer, scheme) -> metric -> (K, S): K probes, S samples


@dataclass(frozen=True, eq=False)
class Chain:
    """A full-precision run, unrolled. steps: the denoiser's calls; images: (P, 3, H, W), whose graph ends in the
    outputs of the steps; kept: the places of the steps whose own output is a reading; visited: of those that are
    differentiated, in order. What a step that is not visited makes of its input is left out of the gradients, so that
    they pass it through the scheduler alone. batched: which of a call's tensors hold the batch (`unroll.batched`)."""

    denoiser: nn.Module
    steps: Sequence[Step]
    images: Tensor
    kept: tuple[int, ...]
    visited: tuple[int, ...]
    batched: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Probes:
    """K weightings of one reading. at: step -> (K, B, ...), their gradients on the outputs of that step.

    follows: whether gradients go on to earlier steps (images), instead of being about one step alone (denoised).
    """

    metric: str
    count: int
    at: Mapping[int, Tensor]
    follows: bool


def draw(
    chain: Chain, metric: Metric, count: int, generator: torch.Generator, encoder: Encoder | None = None,
    texts: Tensor | None = None,
) -> Probes:  # fmt: skip
    """`count` probes of a metric, one for a signed metric: it has a gradient of its own."""
    if metric.reads == "denoised":
        outputs = {place: chain.steps[place].output.detach() for place in chain.kept}
        drawn = {place: [metric.probe(full, generator) for _ in range(count)] for place, full in outputs.items()}
        return Probes(metric.name, count, {place: torch.stack(some) for place, some in drawn.items()}, False)
    count = 1 if metric.signed else count
    with torch.enable_grad():
        reading = read(Outcome(images=chain.images), [metric.reads], encoder, texts)[metric.reads]
    leaves = [step.output for step in chain.steps]
    weights = [metric.probe(reading.detach(), generator).to(reading.dtype) for _ in range(count)]
    ask = partial(torch.autograd.grad, retain_graph=True, allow_unused=True, materialize_grads=True)
    grads = [ask(reading, leaves, one) for one in weights]
    return Probes(metric.name, count, {i: torch.stack(some) for i, some in enumerate(zip(*grads, strict=True))}, True)


def probe(
    chain: Chain, layers: Mapping[str, nn.Module], changes: Mapping[str, Changes], probes: Sequence[Probes],
    rows: int = 256, product: Product = torch.bmm,
) -> Iterator[tuple[int, Responses]]:  # fmt: skip
    """Follow the chain backwards once; yields each visited step's place and what the layers' schemes do in it.

    layers, changes: by layer; rows: the most that one call of the denoiser gets; product: of (R, K, N) gradients and
    (R, N, S) changes to (R, K, S), their sum over N, unless other scores are to be compared with it. The responses on
    images of all steps are to be added up; those on denoised outputs are of that step's samples. Layers whose input
    does not grow with the batch are left out: nothing tells the probes apart there.
    """
    for place in reversed(chain.visited):
        found: Responses = {}
        left_out: set[str] = set()
        for portion in _portions(probes, place, max(1, rows // chain.steps[place].rows)):
            left_out |= layers.keys() - _visit(chain, place, (layers, changes, product), portion, found)
        yield place, {pair: sums for pair, sums in found.items() if pair[0] not in left_out}


def joined(chain: Chain, found: Mapping[int, Responses], probes: Sequence[Probes]) -> Responses:
    """The responses of all visited steps: those on images added up, each visited step standing for as many as there
    are to one, and those on denoised outputs side by side."""
    share = len(chain.steps) / len(chain.visited)
    metrics: Responses = {pair: {} for some in found.values() for pair in some}
    for pair in metrics:
        for mine in probes:
            steps = [found[at][pair][mine.metric] for at in sorted(found) if mine.metric in found[at].get(pair, {})]
            if steps:
                metrics[pair][mine.metric] = torch.stack(steps).sum(0) * share if mine.follows else torch.cat(steps, 1)
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
    chain: Chain, place: int, watched: tuple[Mapping[str, nn.Module], Mapping[str, Changes], Product],
    portion: list[_Part], found: Responses,
) -> set[str]:  # fmt: skip
    """One call with a copy of the batch for each probe, and its backward pass; the layers that it reached."""
    reached: set[str] = set()
    step, (layers, changes, product) = chain.steps[place], watched
    copies = sum(part.stop - part.start for part in portion)
    cotangent = torch.cat([part.probes.at[place][part.start : part.stop].flatten(0, 1) for part in portion])

    def take(layer: str, x: Tensor, g: Tensor) -> None:
        reached.add(layer)
        g_rkn = g.reshape(copies, len(x), -1).transpose(0, 1)
        for scheme, sums in _products(partial(product, g_rkn), iter(changes[layer](x)), step.rows):
            _add(found.setdefault((layer, scheme), {}), sums, portion, len(chain.images))

    args, kwargs = repeated((step.args, step.kwargs), chain.batched, copies)
    inputs = [tensor for tensor in tensors_of((args, kwargs)) if tensor.requires_grad]
    tensors_of((args, kwargs))[0].requires_grad_()  # a checkpointed block needs one input with a gradient
    with torch.enable_grad(), _watching(layers, (copies, step.rows), take):
        output = first_of(chain.denoiser(*args, **kwargs))
        if not output.requires_grad:  # the first call, and it runs none of the layers
            return reached
        output.backward(cotangent.to(output.dtype))
    grads = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in inputs]
    for part in portion if inputs else ():
        if part.probes.follows:
            _follow(chain, place, part, grads)
    return reached


def _follow(chain: Chain, place: int, part: _Part, grads: Sequence[Tensor]) -> None:
    """Hand the gradients on the inputs of a step to the outputs of the steps before it."""
    rows = chain.steps[place].rows
    for copy, k in enumerate(range(part.start, part.stop), part.offset):
        mine = [grad[copy * rows : (copy + 1) * rows] for grad in grads]
        for earlier, more in enumerate(pull(chain.steps, place, mine)):
            part.probes.at[earlier][k] += more


@contextmanager
def _watching(
    layers: Mapping[str, nn.Module], shape: tuple[int, int], take: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Calls `take` with the layer, its input for one copy, and the gradient on its output for all copies.

    shape: (copies, batch).
    """
    copies, rows = shape[0], shape[0] * shape[1]

    def watch(layer: str) -> Callable[..., Tensor | None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled() or len(args[0]) % rows:  # a checkpoint's first pass; one input for all
                return None
            x = args[0].detach()[: len(args[0]) // copies].clone()
            if output.requires_grad:
                output.register_hook(lambda g: take(layer, x, g))
                return None
            leaf = output.detach().requires_grad_()
            leaf.register_hook(lambda g: take(layer, x, g))
            return leaf.clone()  # whoever comes next may write into it

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(watch(name)).remove)
        yield


@torch.no_grad()
def _products(
    product: Callable[[Tensor], Tensor], changes: Iterator[tuple[str, Tensor]], batch: int
) -> Iterator[tuple[str, Tensor]]:
    """(scheme, (K, B) sums). Of R rows of a layer, a multiple of the batch B, those of one sample follow each other."""
    while some := list(_stack(changes)):
        dy_rns = torch.stack([change.flatten(1) for _, change in some], -1)
        for (scheme, _), sums in zip(some, product(dy_rns).float().permute(2, 1, 0), strict=True):
            yield scheme, sums.unflatten(1, (batch, -1)).sum(-1)


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
