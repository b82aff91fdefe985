"""Finds in which order the rows of a layer hold the samples of a call, by a trial in which samples differ in loudness.

A denoiser may repeat its batch for guidance, or fold the frames of a video into it, so that a layer gets several rows
of each sample in an order of its own. The gradient of the call's output is computed twice at each layer, once with the
weights of each sample times a power of two of its own. Backward passes are linear: the gradient at a row that acts on
one sample alone grows by the power of that sample, and tells its place in the batch. No layer needs to see the sample,
as one that reads a time does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from bitplan.sensitivity.probes.gradients import differentiating
from bitplan.sensitivity.probes.rows import Orders, Rows
from bitplan.sensitivity.probes.shares import hooked
from bitplan.sensitivity.probes.unroll import Step
from bitplan.sensitivity.runs.nested import repeated, tensors_of

POWERS = 32  # powers of two that samples are told apart by
PROJECTIONS = 4  # numbers that stand for the gradient at a row
NEAR = 1e-2  # difference of two gradients, relative to their size, that is rounding


def orders_of(step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module], copies: int) -> Orders:
    """The order of the rows of each layer that acts on the outputs of a call.

    Args:
        step: the call.
        batched: which argument tensors have a batch, from `batches.batched`.
        layers: address -> layer.
        copies: the number of copies of the batch to try.
    """
    samples = copies * step.rows
    if not layers or samples == 1:
        return {}
    powers = torch.arange(samples, device="cpu") % POWERS - POWERS // 2
    plain, louder = (_gradients(step, batched, layers, copies, weights) for weights in (0 * powers, powers))
    orders: dict[Rows, int | None] = {}
    for (layer, one), (_, other) in zip(plain, louder, strict=True):
        each, rest = divmod(len(one), samples)
        if rest or not each:
            continue
        outer = _outer(_powers(one, other), powers, each)
        orders[layer, each] = outer if orders.get((layer, each), outer) == outer else None
    return orders


def _outer(found: Tensor, powers: Tensor, each: int) -> int | None:
    """The smallest number of repetitions of the batch that explains the powers found in the rows, nan for any."""
    acts = ~found.isnan()
    for outer in (number for number in range(1, each + 1) if each % number == 0):
        expected = powers.repeat_interleave(each // outer).repeat(outer)
        if torch.equal(found[acts], expected[acts].double()):
            return outer
    return None


def _powers(one: Tensor, other: Tensor) -> Tensor:
    """By which power of two each row of a gradient grew: nan for a row of zeros, inf for one that grew unevenly."""
    one, other = one.double(), other.double()
    size = one.square().sum(1)
    factor = (one * other).sum(1) / size
    power = factor.log2().round()
    even = (other - one * power.exp2()[:, None]).norm(dim=1) <= NEAR * other.norm(dim=1)
    return torch.where(size == 0, torch.nan, torch.where(even, power, torch.inf))


def _gradients(
    step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module], copies: int, powers: Tensor
) -> list[tuple[str, Tensor]]:
    """The gradient at the output of each call of a layer, projected to a few numbers a row, if the output of the step
    is weighted by random signs times these powers of two."""
    found: list[tuple[str, Tensor]] = []

    def observe(layer: str, _: Tensor, output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled() or output.ndim < 2 or not output.numel():
            return None
        leaf = output if output.requires_grad else output.detach().requires_grad_()
        leaf.register_hook(lambda gradient: found.append((layer, _projected(gradient))))
        return None if leaf is output else leaf.clone()

    args, kwargs = repeated((step.args, step.kwargs), batched, copies)
    for tensor in [tensor for tensor in tensors_of((args, kwargs)) if tensor.is_floating_point()][:1]:
        tensor.requires_grad_()  # a checkpointed block needs one input with a gradient
    with torch.enable_grad(), hooked(layers, observe), differentiating(f"a call of {type(step.module).__name__}"):
        ends = [output for output in step.again(args, kwargs) if output.requires_grad]
        if ends:
            torch.autograd.backward(ends, list(_weights(ends, powers)))
    return found


def _projected(gradient: Tensor) -> Tensor:
    flat = gradient.detach().flatten(1).float()
    return (flat @ _signs((flat.shape[1], PROJECTIONS), 1).to(flat)).cpu()


def _signs(shape: Sequence[int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, tuple(shape), generator=generator, dtype=torch.float32, device="cpu") - 1


def _weights(outputs: Sequence[Tensor], powers: Tensor) -> Iterator[Tensor]:
    for place, output in enumerate(outputs):
        factors = powers.float().exp2().view(-1, *(1,) * (output.ndim - 1))
        yield (_signs(output.shape, 2 + place) * factors).to(output)
